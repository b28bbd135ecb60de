"""Serving an application on a socket until a signal ends it: uvicorn, with timeouts and draining of our own.

SIGTERM and SIGINT: new requests get 503, those in work are finished, then the server ends. A second one ends it at
once. SIGHUP: every model is read again. A client that takes longer than `header_seconds` to send a request's header, or
that does not take its answer within the same time, is disconnected.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgeseg.errors import EdgesegError, OptionError
from edgeseg.serving import app
from edgeseg.serving.service import Service
from edgeseg.serving.settings import Settings
from edgeseg.stream.http import Address

log = logging.getLogger(__name__)
BACKLOG = 256
TICK = 0.02
MAX_HEADER = 32 << 10


@dataclass(frozen=True)
class Tls:
    """Files in PEM: the certificate (and those of its issuers), and its private key."""

    certificate: Path
    key: Path

    def check(self) -> None:
        """OptionError where they cannot be used."""
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise OptionError(
                f"TLS with {self.certificate} and {self.key}: {getattr(error, 'strerror', None) or error}.",
                "Expected a certificate and its private key in PEM files that may be read.",
            ) from error


def listen(address: Address) -> socket.socket:
    """A bound socket; OptionError where the address is not free. Warns where others may reach it without a token."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # With its protocol named: asyncio switches Nagle's algorithm off (40 ms an answer) for such sockets only.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        sock.close()
        raise OptionError(
            f"Cannot serve on {address.host}:{address.port}: {getattr(error, 'strerror', None) or error}.",
            "Another program may use that port; choose another one with --port.",
        ) from error
    if not address.local and not address.token:
        log.warning(
            "Everyone who reaches this machine may use the server on %s; --token-file asks for a token.", address.host
        )
    return sock


def run(service: Service, sock: socket.socket, host: str, tls: Tls | None, on_ready: Callable[[], None]) -> None:
    """Serve until a signal ends it. Call it in the main thread."""
    settings = service.settings
    files: dict[str, Any] = {"ssl_certfile": str(tls.certificate), "ssl_keyfile": str(tls.key)} if tls else {}
    config = uvicorn.Config(
        app.create(service, host),
        http=type("Protocol", (TimedProtocol,), {"settings": settings}),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.connections,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=1,
        backlog=BACKLOG,
        h11_max_incomplete_event_size=MAX_HEADER,
        **files,
    )
    server = _Server(config)
    server.service, server.on_ready = service, on_ready
    asyncio.run(server.serve(sockets=[sock]))


class _Server(uvicorn.Server):  # type: ignore[misc, unused-ignore]
    service: Service
    on_ready: Callable[[], None]

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ours, for the time of serving."""
        loop = asyncio.get_running_loop()
        actions = {signal.SIGTERM: self._end, signal.SIGINT: self._end, signal.SIGHUP: self._reload}
        self._tasks: set[asyncio.Task[None]] = set()
        for number, action in actions.items():
            loop.add_signal_handler(number, action)
        try:
            yield
        finally:
            for number in actions:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_ready()

    def _end(self) -> None:
        if self.service.traffic.draining:
            self.should_exit = self.force_exit = True
            return
        self.service.traffic.draining = True
        log.info("ending: %d requests in work", self.service.traffic.active)
        self._start(self._drain())

    async def _drain(self) -> None:
        end = time.monotonic() + self.service.settings.drain_seconds
        while self.service.traffic.active and time.monotonic() < end:
            await asyncio.sleep(TICK)
        if self.service.traffic.active:
            log.warning("%d requests were not finished in time", self.service.traffic.active)
        self.should_exit = True

    def _reload(self) -> None:
        self._start(self._reload_all())

    async def _reload_all(self) -> None:
        for model in self.service.models:
            try:
                await self.service.change(model, "reload")
            except EdgesegError as error:
                log.error("%s", error.what, extra={"hint": error.hint})
            except Exception:
                log.exception("Reloading %s failed", model.name)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself holds it weakly
        task.add_done_callback(self._tasks.discard)


class TimedProtocol(H11Protocol):  # type: ignore[misc, unused-ignore]
    """uvicorn's, whose clients have `header_seconds` for a header, and for taking an answer after it was written.

    uvicorn itself waits for the first request of a connection, and for the rest of a header, without an end.
    """

    settings: Settings
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._between_requests:
            if self._timer is None:
                self._arm()
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._between_requests and self._timer is None and self.conn.trailing_data[0]:
            self._arm()  # the next header began to come while this request was in work

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    @property
    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self.settings.header_seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self._between_requests or self.transport.is_closing():
            self.transport.abort()
