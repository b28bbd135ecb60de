"""`webhook+http://host/path#every=30`: POST every n-th result as JSON (see record.py). `#timeout=2` seconds each.

`#on=change` posts events instead, when a rule of --rules begins to hold and when it ends; `&image=1` adds the picture
of the frame that began it, a JPEG in base64.

A server that is slow or unreachable is counted and logged when it happens; it never delays the run. A result that it
does not take is lost; an event is posted again after 1, 2, 4 ... 60 s until the server takes it or refuses it (4xx).
"""

from __future__ import annotations

import base64
import json
import logging
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from typing import Any

import cv2

from edgeseg.errors import OptionError
from edgeseg.images import Image
from edgeseg.result import Result
from edgeseg.stream.channel import Channel, Closed
from edgeseg.stream.events.watch import Event, Observation
from edgeseg.stream.record import ResultRecord
from edgeseg.stream.sinks import Info, Sink, require_rules
from edgeseg.stream.uri import Convert, Uri, choice, flag, number, whole

log = logging.getLogger(__name__)
FORMS = "webhook+http://HOST/PATH, webhook+https://HOST/PATH"
SHARED = True
SCHEMES = ("webhook+http", "webhook+https")
OPTIONS: dict[str, Convert] = {
    "every": whole(1, 10**9),
    "timeout": number(0.1, 60),
    "on": choice("result", "change"),
    "image": flag,
}
DEPTH = 16
EVENTS_DEPTH = 1000
LONGEST_DELAY = 60.0
IMAGE_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 85)


def claims(uri: Uri) -> bool:
    return uri.scheme in SCHEMES


def open(uri: Uri, info: Info) -> Sink:
    _, options = uri.split(OPTIONS, mark="#")
    on_change = options.pop("on", "result") == "change"
    if on_change:
        require_rules(uri, info)
    if (on_change and "every" in options) or (options.get("image") and not on_change):
        raise OptionError(f"{uri}: every= is for results, image= for events (on=change).", "Leave one of them out.")
    try:
        parts = urllib.parse.urlsplit(uri.url().removeprefix("webhook+"))
        _ = parts.port
    except ValueError:  # its text would show a part of the password
        raise OptionError(f"{uri} is not an address.", "Expected webhook+http://host:port/path") from None
    if not parts.hostname:
        raise OptionError(f"{uri} has no host.", "Expected webhook+http://host:port/path")
    return Webhook(parts, str(uri), info, on_change=on_change, **options)


class Webhook(Sink):
    def __init__(
        self,
        address: urllib.parse.SplitResult,
        name: str,
        info: Info,
        every: int = 30,
        timeout: float = 2.0,
        on_change: bool = False,
        image: bool = False,
    ):
        super().__init__()
        self.needs_events = on_change
        self.needs_image = image
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
        self._events: tuple[Event, ...] = ()
        self._closing = threading.Event()
        self._posts: Channel[dict[str, Any]] = Channel(EVENTS_DEPTH if on_change else DEPTH, drop=True)
        self._thread = threading.Thread(target=self._work, name="edgeseg-webhook", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        return self._failures + self._posts.dropped

    def observe(self, observation: Observation) -> None:
        self._events = observation.events

    def write(self, result: Result, image: Image | None) -> None:
        if self.needs_events:
            events, self._events = self._events, ()
            for event in events:
                self._posts.put({**event.to_dict(), **_picture(event, image)})
            return
        if self._seen % self._every == 0:
            self._posts.put(ResultRecord.of(result, self._info).to_dict())
        self._seen += 1

    def conclude(self, events: tuple[Event, ...]) -> None:
        for event in events:
            self._posts.put(event.to_dict())

    def _work(self) -> None:
        while True:
            try:
                post = self._posts.get(None)
            except Closed:
                return
            assert post is not None
            self._deliver(json.dumps(post).encode())

    def _deliver(self, body: bytes) -> None:
        """Post it; an event again and again, until it is taken or refused, or the run ends."""
        delay = 1.0
        while (failure := self._post(body)) is not None:
            self._note_failure(failure)
            refused = re.match(r"HTTP 4(?!08|29)", failure)
            if refused or not self.needs_events or self._closing.wait(delay):
                self._failures += 1
                return
            delay = min(2 * delay, LONGEST_DELAY)

    def _post(self, body: bytes) -> str | None:
        """Why it failed."""
        request = urllib.request.Request(self._url, body, self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout):
                self.posted += 1
        except urllib.error.HTTPError as error:
            return f"HTTP {error.code}"
        except Exception as error:  # a broken server can make http.client raise nearly anything
            reason = getattr(error, "reason", error)
            return getattr(reason, "strerror", None) or type(reason).__name__
        if self._is_down:
            self._is_down = False
            log.info("%s takes posts again; lost so far: %d.", self._name, self.lost)
        return None

    def _note_failure(self, reason: str) -> None:
        self.failed[reason] += 1
        if not self._is_down:
            self._is_down = True
            then = "Events wait for it" if self.needs_events else "They are counted as lost until it does"
            log.warning("%s takes no posts: %s. %s.", self._name, reason, then)

    def close(self) -> None:
        self._closing.set()
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


def _picture(event: Event, image: Image | None) -> dict[str, str]:
    """`image`: a JPEG in base64, of an event that begins."""
    if image is None or event.event != "start":
        return {}
    return {"image": base64.b64encode(cv2.imencode(".jpg", image, IMAGE_QUALITY)[1].tobytes()).decode()}


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is a failed post: the credentials are for the host that was named."""

    def redirect_request(self, *_: Any) -> None:
        return None
