"""One device over ssh: the agent is started there, told what to do, and its answers are read."""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgeseg.bench.remote import failure
from edgeseg.bundle import MANIFEST, MODEL_SIGNATURE, SIGNATURE, Bundle
from edgeseg.errors import EdgesegError
from edgeseg.fleet import agent
from edgeseg.fleet.config import Device

AGENT = Path(agent.__file__).read_text(encoding="utf-8")
GRACE = 120.0  # seconds that a device has to answer, over those that its work may take


@dataclass(frozen=True)
class Parcel:
    """What every device gets: the bundle's files, the public key (PEM) that it is checked with, if any, and how long a
    device must be healthy, in seconds."""

    bundle: Bundle
    key: str = ""
    window: float = 0

    @property
    def files(self) -> dict[str, bytes]:
        signatures = {SIGNATURE: self.bundle.signature, MODEL_SIGNATURE: self.bundle.model_signature}
        present = {name: data for name, data in signatures.items() if data is not None}
        return {MANIFEST: self.bundle.text, **present, **self.bundle.files}


@dataclass(frozen=True)
class Deployed:
    """`changed`: the device ran something else before, `previous`."""

    changed: bool
    previous: str


class Refused(EdgesegError):
    """The device answered that it does not keep the bundle; it runs what it ran before."""


class Lost(EdgesegError):
    """The connection ended. `touched`: after the device had begun."""

    def __init__(self, error: EdgesegError, touched: bool):
        super().__init__(error.what, error.hint)
        self.touched = touched


def deploy(device: Device, parcel: Parcel, ssh: Sequence[str], update: Callable[[str], None]) -> Deployed:
    """Copy, verify, switch and watch the bundle there; Refused or Lost where that fails.

    `update` gets each step that is done: ready, copied, verified, switched, healthy, kept; or already.
    """
    seconds = agent.LOCK_SECONDS + agent.VERIFY_SECONDS + parcel.window + GRACE
    with _session(device, "deploy", parcel, ssh, seconds) as session:
        while True:
            row = session.answer()
            step = str(row["step"])
            update(step)
            if step == "already":
                return Deployed(False, "")
            if step == "ready":
                session.touched = True
                for data in parcel.files.values():
                    session.send(data)
            elif step == "healthy":
                session.send(b"keep\n")
            elif step == "kept":
                return Deployed(True, str(row.get("previous") or ""))


def undo(device: Device, parcel: Parcel, ssh: Sequence[str]) -> str:
    """Back to what ran before the bundle; returns what runs now."""
    with _session(device, "undo", parcel, ssh, agent.LOCK_SECONDS + GRACE) as session:
        return str(session.answer().get("current") or "")


class _Session:
    def __init__(self, device: Device, process: subprocess.Popen[bytes], stderr: IO[bytes]):
        self.device, self.process, self.stderr = device, process, stderr
        self.touched = False

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # a connection that ended is told by answer()
            self.process.stdin.write(data)
            self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next answer; lines that a shell's greeting prints are skipped."""
        assert self.process.stdout is not None
        mark = agent.MARK.encode()
        for line in self.process.stdout:
            if line.startswith(mark):
                with suppress(ValueError):
                    row = json.loads(line[len(mark) :])
                    if isinstance(row, dict) and "error" in row:
                        raise Refused(str(row["error"])[:600])
                    if isinstance(row, dict) and "step" in row:
                        return row
        code = self.process.wait()
        self.stderr.seek(0)
        text = self.stderr.read().decode(errors="replace")
        if self.touched and not text.strip():
            raise Lost(EdgesegError(f"{self.device.name} was lost in the middle.", "Run it again."), True)
        raise Lost(failure(self.device.address, code, text, "rollout"), self.touched)


@contextmanager
def _session(device: Device, op: str, parcel: Parcel, ssh: Sequence[str], seconds: float) -> Iterator[_Session]:
    request = {
        "op": op,
        "folder": device.folder,
        "digest": parcel.bundle.digest,
        "files": {name: len(data) for name, data in parcel.files.items()},
        "command": device.command or f"{device.python} -m edgeseg",
        "key": device.key,
        "key_text": parcel.key,
        "restart": device.restart,
        "health": device.health,
        "window": parcel.window,
    }
    command = [*device.address.command(ssh), f"{device.python} -c {shlex.quote(AGENT)}"]
    with tempfile.TemporaryFile() as stderr:
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
        except FileNotFoundError:
            raise EdgesegError("There is no ssh on this machine.", "Install it: apt install openssh-client") from None
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            session = _Session(device, process, stderr)
            session.send(json.dumps(request).encode() + b"\n")
            yield session
        finally:
            timer.cancel()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]  # which tells the agent to go back, if it still works
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
