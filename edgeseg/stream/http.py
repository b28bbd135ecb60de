"""A small HTTP server in a thread of its own, for metrics and viewers."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edgeseg.errors import OptionError


class Server(ThreadingHTTPServer):
    """Serves `owner` through `handler` at host:port until stop(); OptionError, naming `what`, if the port is taken."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, handler: type[Handler], owner: Any, what: str):
        try:
            super().__init__((host, port), handler)
        except (OSError, OverflowError) as error:
            raise OptionError(
                f"Cannot serve {what} on {host}:{port}: {getattr(error, 'strerror', None) or error}.",
                "Another program may use that port; choose another one.",
            ) from error
        self.owner = owner
        self.port = int(self.server_address[1])
        threading.Thread(target=self.serve_forever, args=(0.1,), name="edgeseg-http", daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """A client that disconnects is not an error."""


class Handler(BaseHTTPRequestHandler):
    """Subclasses define do_GET."""

    timeout = 5.0
    server: Server

    def reply(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Requests are not logged: they would fill the operator's terminal."""
