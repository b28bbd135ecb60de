"""A small HTTP server in a thread of its own, for metrics and viewers, that only those it is meant for can read.

A page in somebody's browser must not read it through a name that it made point here (DNS rebinding): the Host header
must be an IP address, localhost, or a name in `allow`. With a `token`, a request needs `Authorization: Bearer TOKEN` or
`?token=TOKEN`. At most MAX_REQUESTS are served at once; more are turned away.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import socket
import socketserver
import threading
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edgeseg.errors import OptionError
from edgeseg.stream.redact import redact_uri
from edgeseg.stream.uri import Convert

log = logging.getLogger(__name__)
MAX_REQUESTS = 32
BACKLOG = 64
BUSY = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.lower().split(","))
    if not all(re.fullmatch(r"[\w.-]+", name) for name in names):
        raise ValueError("host names with commas between them")
    return names


def _token(text: str) -> str:
    if not re.fullmatch(r"[\w.~-]{8,}", text):
        raise ValueError("at least 8 letters, digits, -, _, . or ~")
    return text


ACCESS: dict[str, Convert] = {"allow": _names, "token": _token}  # options of every address that is served


@dataclass(frozen=True)
class Address:
    """Where to serve, and whom: names that the Host header may have, and the token to ask for ("": none)."""

    host: str
    port: int
    allow: Sequence[str] = ()
    token: str = ""

    @classmethod
    def parse(cls, text: str, shown: str, example: str, **access: Any) -> Address:
        """Of `HOST:PORT`, `[IPV6]:PORT` or `:PORT`; OptionError, naming `shown`, for anything else."""
        found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/]*):(\d{1,5})", text.rstrip("/"))
        if not found or int(found[2]) > 65535:
            reason = "names a user, but readers need none" if "@" in text else "has no port"
            raise OptionError(f"{redact_uri(shown)} {reason}.", f"Expected {example}")
        return cls(found[1].strip("[]") or "127.0.0.1", int(found[2]), **access)

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


def named_rightly(host_header: str, names: Sequence[str]) -> bool:
    """Whether a Host header is an IP address, localhost or one of `names`."""
    host = re.sub(r":\d*$", "", host_header.strip().lower()).strip("[]")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host in (name.lower() for name in names)
    return True  # no name points anywhere else than it says


def bearer(authorization: str) -> str | None:
    """The token of an Authorization header; None for another scheme, or none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def same_token(given: str, token: str) -> bool:
    """Compared in a time that says nothing of the token."""
    return hmac.compare_digest(given.encode(), token.encode())


class Server(ThreadingHTTPServer):
    """Serves `owner` through `handler` until stop(); OptionError, naming `what`, if the port is taken."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = BACKLOG

    def __init__(self, address: Address, handler: type[Handler], owner: Any, what: str):
        self.address = address
        self.owner = owner
        self._free = threading.BoundedSemaphore(MAX_REQUESTS)
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            super().__init__((address.host, address.port), handler)
        except (OSError, OverflowError, UnicodeError) as error:
            raise OptionError(
                f"Cannot serve {what} on {address.host}:{address.port}: {getattr(error, 'strerror', None) or error}.",
                "Another program may use that port; choose another one.",
            ) from error
        self.port = int(self.server_address[1])
        if not address.local and not address.token:
            log.warning(
                "The %s on %s:%d can be seen by everyone who reaches this machine; ?token=... asks for a token.",
                what, address.host, self.port,
            )  # fmt: skip
        threading.Thread(target=self.serve_forever, args=(0.1,), name="edgeseg-http", daemon=True).start()

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks the DNS for our name, which may take long

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        try:
            request.settimeout(0.1)
            request.sendall(BUSY)
        except OSError:
            pass
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """A client that disconnects is not an error."""


class Handler(BaseHTTPRequestHandler):
    """Subclasses define get(), for requests that are allowed."""

    timeout = 5.0
    server: Server

    def get(self, path: str, query: dict[str, list[str]]) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        if not self._named_rightly():
            self.reply(403, "text/plain", b"this host name is not allowed; the option allow=NAME allows it\n")
        elif self.server.address.token and not self._has_token(query):
            self.reply(401, "text/plain", b"a token is needed\n")
        else:
            self.get(url.path, query)

    def _named_rightly(self) -> bool:
        address = self.server.address
        return named_rightly(self.headers.get("Host", "localhost"), (address.host, *address.allow))

    def _has_token(self, query: dict[str, list[str]]) -> bool:
        given = bearer(self.headers.get("Authorization", ""))
        return same_token(query.get("token", [""])[0] if given is None else given, self.server.address.token)

    def reply(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Requests are not logged: they would fill the operator's terminal."""
