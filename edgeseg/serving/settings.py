"""Settings of a server: its limits, and who may ask."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """`queue`: images per model that may wait for a free slot. `deadline`: seconds from a whole request to its answer.

    `max_bytes`: of one request's body; `max_pixels`: of one image; `max_batch`: images of one request. `max_memory`:
    bytes of all bodies and decoded images together. `body_seconds`, `header_seconds`: how long a client may take to
    send them; `drain_seconds`: how long requests in flight may take once the server is to end. `connections`: open at
    once. `token`: what `Authorization: Bearer` must hold, "" for none; `hosts`: names, besides localhost and
    addresses, that the Host header may have.
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
