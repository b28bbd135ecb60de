"""`mqtt://user:password@broker:1883/site/gate` publishes rules and zones; `mqtts://` does over TLS (extra `mqtt`).

    TOPIC/availability    online, or offline when the run is gone, however it ended (last will); retained
    TOPIC/rule/NAME       ON or OFF; retained
    TOPIC/zone/NAME       {"water": 12.3, ...}: percent of the zone per class, at most every `every` seconds; retained
    TOPIC/event           each start and end of an event as JSON, as in events://
    TOPIC/undecided       ON while results are undecided, OFF when none was for `every` seconds; retained

Without rules the whole frame is a zone. All is QoS 1. Home Assistant finds the rules and zones by itself
(home_assistant.py). Options follow `#`: `every` (5), `discovery` (the prefix of Home Assistant's topics,
`homeassistant`; 0: none), `queue` (1000): how many messages wait for a broker that is away, `timeout` (5) in seconds,
`ca`: a file of certificates to trust.
"""

from __future__ import annotations

import json
import logging
import re
import urllib.parse
from pathlib import Path

from edgeseg.errors import OptionError
from edgeseg.images import Image
from edgeseg.result import Result
from edgeseg.stream.events.rules import Rules
from edgeseg.stream.events.watch import Event, Observation
from edgeseg.stream.events.zones import WHOLE
from edgeseg.stream.home_assistant import PREFIX, discovery
from edgeseg.stream.mqtt import PORTS, Broker, Publisher, Unreachable
from edgeseg.stream.sinks import Info, Sink
from edgeseg.stream.uri import Convert, Uri, number, whole

log = logging.getLogger(__name__)
FORMS = "mqtt://BROKER/TOPIC, mqtts://BROKER/TOPIC"
CLOSE_SECONDS = 5.0
EXPECTED = "Expected mqtt://user:password@host:1883/topic"


def topic_levels(text: str) -> str:
    if not re.fullmatch(r"[\w-]+(/[\w-]+)*", text, re.ASCII):
        raise ValueError("a topic of letters, digits, - and _ between slashes, or 0")
    return text


def existing(text: str) -> Path:
    if not Path(text).is_file():
        raise ValueError("a file that exists")
    return Path(text)


OPTIONS: dict[str, Convert] = {
    "every": number(0.1, 86400),
    "discovery": topic_levels,
    "queue": whole(1, 60_000),
    "timeout": number(0.1, 60),
    "ca": existing,
}


def claims(uri: Uri) -> bool:
    return uri.scheme in PORTS


def open(uri: Uri, info: Info) -> Sink:
    _, options = uri.split(OPTIONS, mark="#")
    broker, topic = _parse(uri, options.pop("timeout", 5.0), options.pop("ca", None))
    publisher = Publisher(broker, f"{topic}/availability", options.pop("queue", 1000))
    sink = Mqtt(publisher, broker.name, topic, info, **options)
    try:
        publisher.connect()
    except Unreachable as error:
        if not info.live:
            raise
        log.warning("%s It is waited for.", error.what, extra={"hint": error.hint})
        publisher.connect_later()
    return sink


def _parse(uri: Uri, timeout: float, ca: Path | None) -> tuple[Broker, str]:
    try:
        parts = urllib.parse.urlsplit(uri.url())
        port = parts.port or PORTS[uri.scheme]
    except ValueError:  # its text would show a part of the password
        raise OptionError(f"{uri} is not an address.", f"{EXPECTED}.") from None
    topic = parts.path.strip("/")
    if not parts.hostname or not topic:
        raise OptionError(f"{uri} has no {'topic' if parts.hostname else 'host'}.", f"{EXPECTED}.")
    if parts.query or not re.fullmatch(r"[^+#$\0/][^+#\0]*", topic) or "//" in topic or len(topic) > 500:
        raise OptionError(f"{uri}: {topic[:80]!r} is no topic to publish to.", f"{EXPECTED}; options follow #.")
    if ca and uri.scheme != "mqtts":
        raise OptionError(f"{uri}: ca= without TLS.", "Write mqtts://.")
    user, password = (None if part is None else urllib.parse.unquote(part) for part in (parts.username, parts.password))
    return Broker(str(uri), parts.hostname, port, user, password, uri.scheme == "mqtts", ca, timeout), topic


class Mqtt(Sink):
    needs_events = True

    def __init__(
        self, publisher: Publisher, name: str, topic: str, info: Info, every: float = 5.0, discovery: str = PREFIX
    ):
        super().__init__()
        self._publisher = publisher
        self._name = name
        self._topic = topic
        self._classes = info.spec.classes
        self._every = every
        self._observation: Observation | None = None
        self._shares_at: float | None = None  # observed time
        self._undecided_at: float | None = None  # observed time of the latest undecided result
        self._sensors = _sensors(info.rules or Rules(), self._classes)
        if discovery != "0":
            self._announce(info, discovery)

    def _announce(self, info: Info, prefix: str) -> None:
        rules = info.rules.rules if info.rules else ()
        for topic, payload in discovery(self._topic, info.name, rules, self._sensors, prefix, info.review):
            self._publisher.state(topic, json.dumps(payload))

    @property
    def lost(self) -> int:
        return self._publisher.lost

    def observe(self, observation: Observation) -> None:
        self._observation = observation

    def write(self, result: Result, image: Image | None) -> None:
        observation, self._observation = self._observation, None
        if observation is None:
            return
        for event in observation.events:
            self._publisher.event(f"{self._topic}/event", json.dumps(event.to_dict()))
        for name, active in observation.active.items():
            self._publisher.state(f"{self._topic}/rule/{name}", "ON" if active else "OFF")
        if result.decision is not None:
            self._publish_undecided(result.decision.undecided, observation.seconds)
        if self._shares_at is None or not 0 <= observation.seconds - self._shares_at < self._every:
            self._shares_at = observation.seconds
            self._publish_shares(observation)

    def _publish_undecided(self, undecided: bool, seconds: float) -> None:
        """ON at once, OFF after a while: frames that are just sure enough come between others."""
        if undecided:
            self._undecided_at = seconds
        lately = self._undecided_at is not None and seconds - self._undecided_at < self._every
        self._publisher.state(f"{self._topic}/undecided", "ON" if lately else "OFF")

    def _publish_shares(self, observation: Observation) -> None:
        for zone, shares in observation.shares.items():
            always = self._sensors.get(zone, ())
            percent = {
                name: round(100 * float(share), 1)
                for name, share in zip(self._classes, shares)
                if share >= 0.0005 or name in always
            }
            self._publisher.state(f"{self._topic}/zone/{zone}", json.dumps(percent))

    def conclude(self, events: tuple[Event, ...]) -> None:
        for event in events:
            self._publisher.event(f"{self._topic}/event", json.dumps(event.to_dict()))
            self._publisher.state(f"{self._topic}/rule/{event.rule}", "OFF")

    def close(self) -> None:
        self._publisher.close(CLOSE_SECONDS)
        if self._publisher.lost:
            warning = f"{self._name}: events that the broker did not get: {self._publisher.lost}."
            self.warnings += [warning] if warning not in self.warnings else []


def _sensors(rules: Rules, classes: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The classes of each zone that rules ask for; without rules those of the whole frame."""
    if not rules.rules:
        return {WHOLE: classes}
    asked: dict[str, dict[str, None]] = {}
    for rule in rules.rules:
        asked.setdefault(rule.when.zone, {}).update(dict.fromkeys(rule.when.classes))
    return {zone: tuple(names) for zone, names in asked.items()}
