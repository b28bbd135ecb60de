"""The program that a rollout runs on a device: `python3 -c` over ssh, with Python >= 3.9 alone.

Standard input: a request (one line of JSON), then the bundle's files one after the other, then "keep" once this device
may keep what it was given. Standard output: lines of MARK and JSON. A device that loses the connection before "keep"
goes back by itself.

FOLDER/DIGEST/           a bundle, complete and verified; DIGEST is the sha256 of its bundle.json
FOLDER/current           a link to the one that runs
FOLDER/previous          a link to the one that ran before
FOLDER/.rollout.json     while `current` is on probation: where to go back to
FOLDER/.DIGEST.incoming  while it is copied and verified
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MARK = "edgeseg-rollout "
PENDING = ".rollout.json"
LOCK_SECONDS, KEEP_SECONDS, PROBE_SECONDS, VERIFY_SECONDS = 30, 60, 10, 600
POLL_SECONDS = 1.0


class Lost(Exception):
    """The other side is gone, or wants us to stop."""


class Failed(Exception):
    """What to tell the other side."""


class Link:
    """The two pipes of the connection; unbuffered, so that a closed one is seen at once."""

    def __init__(self, source: int = 0, sink: int = 1):
        self.source, self.sink = source, sink

    def read(self, count: int) -> bytes:
        data = os.read(self.source, min(count, 1 << 20))
        if not data:
            raise Lost
        return data

    def line(self) -> bytes:
        text = bytearray()
        while not text.endswith(b"\n"):
            text += self.read(1)
        return bytes(text)

    def wait(self, seconds: float) -> bool:
        """Whether there is something to read within `seconds`; Lost where that is the end."""
        return bool(select.select([self.source], [], [], seconds)[0])

    def check(self, seconds: float = 0) -> None:
        """Wait `seconds`; Lost where the connection ended. Nothing is sent to us meanwhile."""
        if self.wait(seconds):
            raise Lost

    def say(self, **row: object) -> None:
        try:
            os.write(self.sink, f"{MARK}{json.dumps(row)}\n".encode())
        except OSError:
            raise Lost from None


def deploy(request: dict[str, Any], link: Link) -> None:
    """Copy, verify, switch, watch and keep; whatever goes wrong, nothing of it is left."""
    folder, digest = Path(request["folder"]), str(request["digest"])
    settle(folder, request)
    before = target(folder / "current")
    if before == digest:
        link.say(step="already")
        return
    link.say(step="ready")
    incoming = folder / f".{digest}.incoming"
    try:
        receive(incoming, request["files"], digest, link)
        link.say(step="copied")
        verify(incoming, request, link)
        link.check()
        link.say(step="verified")
        remove(folder / digest)  # of an earlier rollout; it does not run
        incoming.rename(folder / digest)
        sync(folder)
    finally:
        remove(incoming)
    try:
        write(folder / PENDING, json.dumps({"before": before, "digest": digest}).encode())
        point(folder / "current", digest)
        run(request["restart"], "The restart command")
        link.say(step="switched")
        watch(request, link)
        link.say(step="healthy")
        if not link.wait(KEEP_SECONDS) or link.line() != b"keep\n":
            raise Lost
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            settle(folder, request)
        except Failed as second:
            raise Failed(f"{error} {second}") from None
        raise
    point(folder / "previous", before)
    (folder / PENDING).unlink()
    sync(folder)
    prune(folder)
    link.say(step="kept", previous=before)


def undo(request: dict[str, Any], link: Link) -> None:
    """Back to the bundle before `digest`, if that runs."""
    folder, digest = Path(request["folder"]), str(request["digest"])
    settle(folder, request)
    if target(folder / "current") == digest:
        before = target(folder / "previous")
        point(folder / "current", before)
        point(folder / "previous", None)
        remove(folder / digest)
        run(request["restart"], "The restart command")
    link.say(step="undone", current=target(folder / "current"))


def settle(folder: Path, request: dict[str, Any]) -> None:
    """End what a rollout left unfinished: back to the bundle before it, copies removed."""
    for half in (*folder.glob(".*.incoming"), *folder.glob(".*.tmp")):
        remove(half)
    with contextlib.suppress(FileNotFoundError):
        pending = json.loads((folder / PENDING).read_text())
        point(folder / "current", pending["before"])
        if pending["before"] != pending["digest"]:
            remove(folder / pending["digest"])
        (folder / PENDING).unlink()
        sync(folder)
        run(request["restart"], "Went back, but the restart command")


def receive(place: Path, files: dict[str, int], digest: str, link: Link) -> None:
    """The files of the bundle from the connection into `place`, on the disk when this returns."""
    place.mkdir()
    for name, size in files.items():
        path = place / name
        if ".." in path.parts or not str(path).startswith(f"{place}/"):
            raise Failed(f"The bundle names a file outside itself: {name}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            left = size
            while left:
                data = link.read(left)
                file.write(data)
                left -= len(data)
            file.flush()
            os.fsync(file.fileno())
    for inside in [place, *(path for path in place.rglob("*") if path.is_dir())]:
        sync(inside)
    if hashlib.sha256((place / "bundle.json").read_bytes()).hexdigest() != digest:
        raise Failed("The bundle arrived damaged.")


def verify(place: Path, request: dict[str, Any], link: Link) -> None:
    """`edgeseg verify` of this device: digests, golden frames and, with a key, the signature."""
    words = ["verify", str(place)]
    sent = place.with_name(f".{place.name}.key.tmp")
    try:
        if request["key"]:
            words += ["--key", str(Path(request["key"]).expanduser())]
        elif request["key_text"]:
            write(sent, request["key_text"].encode())
            words += ["--key", str(sent)]
        run(f"{request['command']} {' '.join(map(shlex.quote, words))}", "edgeseg verify", link, VERIFY_SECONDS)
    finally:
        remove(sent)


def watch(request: dict[str, Any], link: Link) -> None:
    """Failed unless this device becomes healthy within the window, and then stays so to its end."""
    if not request["health"]:
        return
    begin, well, reason = time.monotonic(), False, ""
    while True:
        try:
            probe(request["health"], link)
            well = True
        except Failed as error:
            reason = str(error)
            if well:
                raise Failed(f"It was healthy, and then no longer: {reason}") from None
        left = begin + request["window"] - time.monotonic()
        if left <= 0:
            break
        link.check(min(POLL_SECONDS, left))
    if not well:
        raise Failed(f"It did not become healthy within {request['window']:g} s: {reason}")


def probe(health: str, link: Link) -> None:
    """Failed unless the URL answers 2xx, or the command ends with 0."""
    if not re.match(r"https?://", health):
        run(health, "The health command", link, PROBE_SECONDS)
        return
    try:
        urllib.request.urlopen(health, timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError as error:
        raise Failed(f"the health URL answered {error.code}.") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Failed(f"the health URL does not answer: {getattr(error, 'reason', error)}.") from None


def run(command: str, what: str, link: Link | None = None, seconds: float = 60) -> None:
    """Run a command of the shell; Failed, with the end of what it wrote, unless it ends with 0. It is killed where it
    takes too long, or `link` ends meanwhile."""
    if not command:
        return
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        end = time.monotonic() + seconds
        try:
            while process.poll() is None:
                if time.monotonic() > end:
                    raise Failed(f"{what} did not end within {seconds:g} s.")
                link.check(0.05) if link else time.sleep(0.05)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            output.seek(0)
            lines = output.read().decode(errors="replace").strip().splitlines()
            end_of_it = re.sub(r"^[\d:]+ Error: ", "", " ".join(lines[-2:]))
            raise Failed(f"{what} failed ({process.returncode}): {end_of_it[:500]}")


def target(link: Path) -> str | None:
    """What a link points to, None where there is none; Failed for something else in its place."""
    if not link.is_symlink():
        if link.exists():
            raise Failed(f"{link} is not a link. Move it away, or choose another folder.")
        return None
    return str(link.readlink())


def point(link: Path, to: str | None) -> None:
    """Let `link` point to `to`, in one step; without one, remove it."""
    if to is None:
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
    else:
        new = link.with_name(f".{link.name}.tmp")
        remove(new)
        new.symlink_to(to)
        new.replace(link)
    sync(link.parent)


def prune(folder: Path) -> None:
    """Remove bundles that are neither current nor previous."""
    kept = (target(folder / "current"), target(folder / "previous"))
    for path in folder.iterdir():
        if re.fullmatch(r"[0-9a-f]{64}", path.name) and path.name not in kept:
            remove(path)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def write(path: Path, data: bytes) -> None:
    new = path.with_name(f"{path.name}.tmp")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync(path.parent)


def sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One rollout at a time; one that has just lost its connection may need a moment to go back."""
    with (folder / ".rollout.lock").open("w") as file:
        end = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > end:
                    raise Failed("Another rollout is working on this device.") from None
                time.sleep(0.1)
        yield


def interrupted(number: int, frame: object) -> None:
    raise Lost


def main() -> int:
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    link = Link()
    try:
        try:
            request = json.loads(link.line())
            folder = Path(request["folder"]).expanduser()
            request["folder"] = str(folder)
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder):
                {"deploy": deploy, "undo": undo}[request["op"]](request, link)
            return 0
        except Failed as error:
            link.say(error=str(error))
        except OSError as error:
            link.say(error=f"{error.filename or 'The device'}: {error.strerror}.")
    except Lost:
        pass
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
