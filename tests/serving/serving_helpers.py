"""A server in a process of its own, and small ways to ask it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        """The words of an error."""
        error = self.json["error"]
        return error if isinstance(error, str) else f"{error['what']} {error['hint']}"


@dataclass
class Served:
    process: subprocess.Popen[str]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request on a connection of its own; `_` in header names is `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def segment(self, image: bytes, query: str = "", **headers: str) -> Answer:
        return self.ask("POST", "/v1/segment" + query, image, **headers)

    def end(self, seconds: float = 30) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def metric(self, name: str) -> float:
        text = self.ask("GET", "/metrics").body.decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)
        return float(found[1]) if found else 0.0


@contextmanager
def serving(log: Path, *words: object, token: str = "") -> Iterator[Served]:
    """`edgeseg serve` with these words on a free port, ready."""
    command = [sys.executable, "-m", "edgeseg", "serve", *map(str, words), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EDGESEG_TOKEN": token, "PYTHONFAULTHANDLER": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file, stdout=file, text=True, env=environment)
    try:
        yield Served(process, _port(process, log), log)
    finally:
        process.kill()
        process.wait()


def _port(process: subprocess.Popen[str], log: Path) -> int:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if found := re.search(r"at https?://\S+:(\d+)", log.read_text()):
            return int(found[1])
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def multipart(*files: tuple[str, bytes]) -> tuple[bytes, str]:
    """(body, content type) of a form with these files."""
    parts = [
        f'--x7\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + b"--x7--\r\n", "multipart/form-data; boundary=x7"
