"""Guard: what every request passes first. Who may ask, the request id, headers for browsers, draining, and errors."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response

from edgeseg.errors import EdgesegError, out_of_memory
from edgeseg.serving.errors import (
    FORBIDDEN,
    INTERNAL,
    REQUEST_TIMEOUT,
    UNAUTHORIZED,
    UNAVAILABLE,
    UNPROCESSABLE,
    HttpError,
)
from edgeseg.serving.metrics import ServerMetrics
from edgeseg.serving.settings import Settings
from edgeseg.stream.http import bearer, named_rightly, same_token

log = logging.getLogger(__name__)
Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Any, Send], Awaitable[None]]
REQUEST_ID = re.compile(r"[\w.-]{1,64}")
PROBES = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")  # answered without a token, and while draining
PAGE = ("/", "/page/")  # files of the package, which hold nothing secret
TOKEN_HINT = "Send the header Authorization: Bearer TOKEN."
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:{live}; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass
class Traffic:
    """Requests in work, probes not counted, and whether new ones are refused since the server is about to end."""

    active: int = 0
    draining: bool = False


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: App, settings: Settings, host: str, traffic: Traffic, metrics: ServerMetrics):
        self._app = app
        self._settings = settings
        self._names = (host, *settings.hosts)
        self._traffic = traffic
        self._metrics = metrics
        live = "".join(f" {origin}" for origin in dict.fromkeys(stream.origin for stream in settings.live))
        self._security = {"Content-Security-Policy": POLICY.format(live=live), **SECURITY}

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        watched = _Watched(scope, send, self._security)
        scope["request_id"] = watched.id
        probe = scope["path"] in PROBES
        self._traffic.active += not probe
        try:
            self._admit(scope, watched.headers)
            await self._app(scope, receive, watched.send)
        except Exception as error:
            if watched.status and not watched.complete:  # uvicorn closes the connection
                raise
            if not watched.status:
                await rendered(error, scope)(scope, receive, watched.send)
        finally:
            self._traffic.active -= not probe
            self._report(scope, watched)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        path = scope["path"]
        if not named_rightly(headers.get("host", "localhost"), self._names):
            raise HttpError(FORBIDDEN, "This host name is not allowed.", "edgeseg serve --allow-host NAME allows it.")
        origin = headers.get("origin")
        if origin and origin != "null" and urlsplit(origin).netloc != headers.get("host"):
            raise HttpError(FORBIDDEN, "Pages of other sites may not ask.", "Ask from a program, or from this site.")
        if self._traffic.draining and path not in PROBES:
            raise HttpError(UNAVAILABLE, "The server is about to end.", "Ask another one, or again soon.", 1)
        public = path in PROBES or path == PAGE[0] or path.startswith(PAGE[1])
        token = self._settings.token
        if token and not public and not same_token(bearer(headers.get("authorization", "")) or "", token):
            raise HttpError(UNAUTHORIZED, "A token is needed.", TOKEN_HINT)

    def _report(self, scope: Scope, watched: _Watched) -> None:
        route = getattr(scope.get("route"), "path", "other")
        status = watched.status or INTERNAL
        seconds = time.perf_counter() - watched.began
        self._metrics.answered(route, status, seconds)
        level = logging.WARNING if status >= INTERNAL else logging.DEBUG
        path = scope["path"][:200].encode("unicode_escape").decode()
        log.log(level, "%s %s: %d in %.0f ms [%s]", scope["method"], path, status, 1000 * seconds, watched.id)


class _Watched:
    """A request whose response gets an id and the headers for browsers, and whose status is noted."""

    def __init__(self, scope: Scope, send: Send, security: Mapping[str, str]):
        self.began = time.perf_counter()
        self.headers = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        self.status = 0
        self.complete = False
        self._send = send
        self._security = security

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.id
            for name, value in self._security.items():
                headers.setdefault(name, value)
            if self.status in (UNAVAILABLE, REQUEST_TIMEOUT):
                headers["Connection"] = (
                    "close"  # uvicorn reads the rest of other bodies, so that clients get their answer
                )
        await self._send(message)
        self.complete = message["type"] == "http.response.body" and not message.get("more_body", False)


def rendered(error: Exception, scope: Scope) -> Response:
    """The JSON of an error; in /v2 as the Open Inference Protocol has it, where it is one text."""
    request_id = scope["request_id"]
    known = _known(error, request_id)
    body: dict[str, Any]
    if scope["path"].startswith("/v2"):
        body = {"error": f"{known.what} {known.hint}".strip(), "request_id": request_id}
    else:
        about = {"status": known.status, "what": known.what, "hint": known.hint, "request_id": request_id}
        body = {"error": about}
    headers = {"Retry-After": str(known.retry_after)} if known.retry_after else {}
    if known.status == UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    text = json.dumps(body, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return Response(text, known.status, headers, "application/json")


def _known(error: Exception, request_id: str) -> HttpError:
    if isinstance(error, EdgesegError):
        return HttpError.of(error, UNPROCESSABLE)
    if memory := out_of_memory(error):
        return HttpError.of(memory, UNAVAILABLE)
    log.error("Internal error [%s]: %s", request_id, type(error).__name__, exc_info=error)
    return HttpError(INTERNAL, "Internal error.", f"The server's log says more, beside {request_id}.")
