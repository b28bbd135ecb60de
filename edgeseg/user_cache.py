"""Where engines that were built on this machine, and frames out of shards, are kept: in folders of this user alone.

Engines are executable: what is in such a folder is used only if it is, byte by byte, what edgeseg put there
for this user.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeseg.errors import FileError
from edgeseg.files import sha256, write_bytes

DIGESTS = "digests.json"
LOCK = ".lock"
_root: Path | None = None


def use(root: Path | None) -> None:
    """Keep the cache of this process below `root`; None: ~/.cache/edgeseg."""
    global _root
    _root = root


def folder(name: str) -> Path:
    """The private folder `name` of the cache, created where it is missing."""
    return private((_root or Path.home() / ".cache" / "edgeseg") / name)


def private(path: Path) -> Path:
    """`path`, created where it is missing, for this user alone (0700); FileError where others could write into it."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = path.stat()
        others_wrote = status.st_uid != os.getuid() or bool(stat.S_IMODE(status.st_mode) & 0o022)
        if not others_wrote:
            path.chmod(0o700)
    except OSError as error:
        raise FileError(
            f"Cannot keep engines in {path}: {error.strerror}.", "Choose a folder you may write."
        ) from error
    if others_wrote:
        raise FileError(
            f"Engine folder {path} can be written by other users.",
            "Engines are executed: keep them in a folder of your own (--cache-dir, or chmod go-w and empty it).",
        )
    return path


@contextmanager
def checked(path: Path, log: Callable[[str], None] = lambda text: None) -> Iterator[Path]:
    """The private folder `path`, holding only files that are as the last such block left them; others are removed.

    One process at a time; the others wait.
    """
    with locked(private(path) / LOCK, log):
        known = _digests(path)
        for file in _entries(path):
            if file.is_symlink() or known.get(_name(file, path)) != sha256(file):
                log(f"removed {file}: it is not what was kept there")
                file.unlink()
        yield path
        digests = {_name(file, path): sha256(file) for file in _entries(path)}
        if digests != known:
            write_bytes(path / DIGESTS, json.dumps(digests).encode())


@contextmanager
def locked(path: Path, log: Callable[[str], None]) -> Iterator[None]:
    """One process at a time. The system releases the lock of a process that dies."""
    try:
        file = path.open("wb")
    except OSError as error:
        raise FileError(f"Cannot write {path}: {error.strerror}.", "Choose a folder you may write.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            log("another process builds this engine: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _entries(path: Path) -> list[Path]:
    own = (path / DIGESTS, path / LOCK)
    return sorted(file for file in path.rglob("*") if file not in own and (file.is_symlink() or file.is_file()))


def _name(file: Path, path: Path) -> str:
    return file.relative_to(path).as_posix()


def _digests(path: Path) -> dict[str, object]:
    try:
        known = json.loads((path / DIGESTS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
