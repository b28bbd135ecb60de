"""Settings of a server: its limits, and who may ask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from edgeseg.errors import OptionError
from edgeseg.stream.redact import redact_uri

PLACE = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:]+\])(?::\d{1,5})?")  # goes into a header: nothing else may be in it


@dataclass(frozen=True)
class Live:
    """A stream that the page shows: the `url` of its video as the reader's browser reaches it, MJPEG."""

    name: str
    url: str

    @property
    def origin(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @classmethod
    def parse(cls, text: str) -> Live:
        """Of NAME=http://HOST:PORT, the address of a mjpeg:// sink; OptionError for anything else."""
        name, _, url = text.partition("=")
        parts = urlsplit(url)
        if not name or parts.scheme not in ("http", "https") or not PLACE.fullmatch(parts.netloc):
            raise OptionError(
                f"Live stream {redact_uri(text)[:200]}.", "Expected NAME=http://HOST:PORT of a mjpeg:// sink."
            )
        path = parts.path if parts.path.strip("/") else "/stream"
        return cls(name, urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")))


@dataclass(frozen=True)
class Settings:
    """`queue`: images per model that may wait for a free slot. `deadline`: seconds from a whole request to its answer.

    `max_bytes`: of one request's body; `max_pixels`: of one image; `max_batch`: images of one request. `max_memory`:
    bytes of all bodies and decoded images together. `body_seconds`, `header_seconds`: how long a client may take to
    send them; `drain_seconds`: how long requests in flight may take once the server is to end. `connections`: open at
    once. `token`: what `Authorization: Bearer` must hold, "" for none; `hosts`: names, besides localhost and
    addresses, that the Host header may have. `live`: streams for the page.
    """

    queue: int = 32
    deadline: float = 10.0
    max_bytes: int = 32 << 20
    max_pixels: int = 50_000_000
    max_batch: int = 16
    max_memory: int = 1 << 30
    body_seconds: float = 20.0
    header_seconds: float = 10.0
    drain_seconds: float = 30.0
    connections: int = 512
    token: str = ""
    hosts: tuple[str, ...] = ()
    live: tuple[Live, ...] = ()
