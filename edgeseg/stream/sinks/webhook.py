"""`webhook+http://host/path#every=30`: POST every n-th result as JSON (see record.py). `#timeout=2` seconds each.

A server that is slow or unreachable is counted and logged when it happens; it never delays the run.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from typing import Any

from edgeseg.errors import OptionError
from edgeseg.images import Image
from edgeseg.result import Result
from edgeseg.stream.channel import Channel, Closed
from edgeseg.stream.record import ResultRecord
from edgeseg.stream.sinks import Info, Sink
from edgeseg.stream.uri import Uri, number, whole

log = logging.getLogger(__name__)
FORMS = "webhook+http://HOST/PATH, webhook+https://HOST/PATH"
SHARED = True
SCHEMES = ("webhook+http", "webhook+https")
DEPTH = 16


def claims(uri: Uri) -> bool:
    return uri.scheme in SCHEMES


def open(uri: Uri, info: Info) -> Sink:
    _, options = uri.split({"every": whole(1, 10**9), "timeout": number(0.1, 60)}, mark="#")
    try:
        parts = urllib.parse.urlsplit(uri.url().removeprefix("webhook+"))
        _ = parts.port
    except ValueError:  # its text would show a part of the password
        raise OptionError(f"{uri} is not an address.", "Expected webhook+http://host:port/path") from None
    if not parts.hostname:
        raise OptionError(f"{uri} has no host.", "Expected webhook+http://host:port/path")
    return Webhook(parts, str(uri), info, **options)


class Webhook(Sink):
    def __init__(self, address: urllib.parse.SplitResult, name: str, info: Info, every: int = 30, timeout: float = 2.0):
        super().__init__()
        self.posted = 0
        self.failed: Counter[str] = Counter()
        self._failures = 0
        self._is_down = False
        self._info = info
        self._every = every
        self._timeout = timeout
        self._seen = 0
        self._name = name
        self._url = address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()
        self._headers = {"Content-Type": "application/json"}
        if address.username is not None:
            user, password = (urllib.parse.unquote(part or "") for part in (address.username, address.password))
            self._headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        # Straight to the host: the environment's proxies are not for devices' own networks.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)
        self._posts: Channel[ResultRecord] = Channel(DEPTH, drop=True)
        self._thread = threading.Thread(target=self._work, name="edgeseg-webhook", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        return self._failures + self._posts.dropped

    def write(self, result: Result, image: Image | None) -> None:
        if self._seen % self._every == 0:
            self._posts.put(ResultRecord.of(result, self._info))
        self._seen += 1

    def _work(self) -> None:
        while True:
            try:
                post = self._posts.get(None)
            except Closed:
                return
            assert post is not None
            self._post(json.dumps(post.to_dict()).encode())

    def _post(self, body: bytes) -> None:
        request = urllib.request.Request(self._url, body, self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout):
                self.posted += 1
        except urllib.error.HTTPError as error:
            self._note_failure(f"HTTP {error.code}")
        except Exception as error:  # a broken server can make http.client raise nearly anything
            reason = getattr(error, "reason", error)
            self._note_failure(getattr(reason, "strerror", None) or type(reason).__name__)
        else:
            if self._is_down:
                self._is_down = False
                log.info("%s takes posts again; lost so far: %d.", self._name, self.lost)

    def _note_failure(self, reason: str) -> None:
        self._failures += 1
        self.failed[reason] += 1
        if not self._is_down:
            self._is_down = True
            log.warning("%s takes no posts: %s. They are counted as lost until it does.", self._name, reason)

    def close(self) -> None:
        self._posts.finish()
        self._thread.join(2 * self._timeout)
        failed = sum(self.failed.values())
        lost = self._posts.dropped + (len(self._posts) if self._thread.is_alive() else 0)
        if failed or lost:
            why = ", ".join(f"{n}x {reason}" for reason, n in self.failed.most_common(3))
            self.warnings.append(
                f"{self._name}: {failed} of {failed + self.posted} posts failed ({why}), {lost} not sent."
            )
        self.failed.clear()
        self._posts.abandon()


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is a failed post: the credentials are for the host that was named."""

    def redirect_request(self, *_: Any) -> None:
        return None
