"""Files of other people, fetched where the user asks for them, and checked byte by byte."""

from __future__ import annotations

import http.client
import ipaddress
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from edgeseg.errors import FileError, OptionError
from edgeseg.files import require_file, sha256
from edgeseg.zoo import PublishedModel, RemoteFile

TIMEOUT_SECONDS = 30.0
CHUNK = 1 << 20
MAX_BYTES = 4 << 30  # of one file whose size is not stated


def fetch(
    model: PublishedModel,
    folder: Path,
    copies: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, str]:
    """Every file of a model in `folder`, downloaded or taken from the folder `copies`; returns their SHA-256 by name.

    A file that is there already and is right is kept; one that was interrupted goes on where it stopped. FileError for
    a file that cannot be had, or is not the one that its author states: it is then removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for file in model.files:
        path = folder / file.name
        if not (path.is_file() and file.sha256 and sha256(path).startswith(file.sha256)):
            part = path.with_name(f"{path.name}.part")
            if copies is not None:
                shutil.copyfile(require_file(copies / file.name, "Copy"), part)
            else:
                _download(file, part, on_progress or (lambda done, total: None))
            _check(file, part)
            part.replace(path)
        digests[file.name] = sha256(path)
    return digests


def _check(file: RemoteFile, part: Path) -> None:
    found = sha256(part)
    if not found.startswith(file.sha256):
        part.unlink()
        raise FileError(
            f"{file.name} has SHA-256 {found}, its author states {file.sha256}.",
            "It was damaged or replaced on its way; nothing was kept. Try again, or ask its author.",
        )


def _download(file: RemoteFile, part: Path, on_progress: Callable[[int, int], None]) -> None:
    _require_safe(file.url)
    done = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={done}-"} if done else {})
    limit = file.size or MAX_BYTES
    try:
        with _OPENER.open(request, timeout=TIMEOUT_SECONDS) as response:
            resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
            done = done if resumed else 0
            length = int(response.headers.get("Content-Length") or 0)
            total = file.size or (done + length if length else 0)
            with part.open("ab" if resumed else "wb") as out:
                while chunk := response.read(CHUNK):
                    done += len(chunk)
                    if done > limit:
                        raise _too_large(file, part, limit)
                    out.write(chunk)
                    on_progress(done, total or done)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # it is whole
            return
        raise FileError(f"{file.url}: {error.code} {error.reason}.", _hint(file)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise FileError(f"{file.url} cannot be fetched: {reason}.", _hint(file)) from error
    if total and done < total:
        raise FileError(f"{file.url} ended after {done} of {total} bytes.", "Try again: it goes on where it stopped.")


def _too_large(file: RemoteFile, part: Path, limit: int) -> FileError:
    part.unlink()
    return FileError(f"{file.url} has more than {limit} bytes.", "It is not the file of the table; nothing was kept.")


def _hint(file: RemoteFile) -> str:
    return f"Is there a network? Fetch {file.name} by other means, and give its folder: --from FOLDER."


def _require_safe(url: str) -> None:
    """OptionError for anything but https; http is for this machine alone."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        return
    raise OptionError(f"{url} is not fetched.", "Expected https://.")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        _require_safe(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_SafeRedirects)
