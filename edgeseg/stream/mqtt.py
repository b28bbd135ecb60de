"""Publisher: messages to an MQTT broker that may come and go.

Events wait for the broker and are sent again until it acknowledges them (QoS 1); beyond a bound they are lost, and
counted. Of a state only the newest value is of interest: the broker keeps it (retained), and gets it again with each
connection.
"""

from __future__ import annotations

import logging
import secrets
import ssl
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.errors import FileError, MissingPackage, StreamError
from edgeseg.stream.redact import redact

log = logging.getLogger(__name__)
PORTS = {"mqtt": 1883, "mqtts": 8883}
QOS = 1
KEEP_ALIVE = 30
LONGEST_DELAY = 60
IN_FLIGHT = 20
FULL = 15  # paho's MQTT_ERR_QUEUE_SIZE


class Unreachable(StreamError):
    """The broker does not answer: it may do so later."""


@dataclass(frozen=True)
class Broker:
    """`name`: its URI as it may be shown. `ca`: a file of certificates to trust, for TLS."""

    name: str
    host: str
    port: int
    user: str | None = None
    password: str | None = None
    tls: bool = False
    ca: Path | None = None
    timeout: float = 5.0


class Publisher:
    """`availability`: the topic that says online, and offline when we are gone for whatever reason (last will).

    Calls of one thread. `queue`: how many messages may wait for the broker. `lost`: events that it will not get.
    """

    def __init__(self, broker: Broker, availability: str, queue: int):
        try:
            from paho.mqtt.client import Client
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise MissingPackage("paho-mqtt", f"Publishing to {broker.name}", "mqtt") from error
        self.lost = 0
        self.acknowledged = 0  # events
        self._broker = broker
        self._availability = availability
        self._states: dict[str, str] = {availability: "online"}
        self._unsent: dict[str, None] = {}  # topics of states that found the queue full
        self._lock = threading.Lock()  # of both, and so that states are sent in order
        self._answered = threading.Event()
        self._refusal = ""
        self._was_connected = False
        self._closing = False
        self._waiting: set[int] = set()  # events that were not acknowledged yet, by their message ids
        self._acknowledgments: deque[int] = deque()  # from the client's thread
        name = f"edgeseg-{secrets.token_hex(6)}"
        self._client = Client(CallbackAPIVersion.VERSION2, name)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.connect_timeout = broker.timeout
        self._client.max_queued_messages_set(queue)
        self._client.max_inflight_messages_set(IN_FLIGHT)
        self._client.reconnect_delay_set(1, LONGEST_DELAY)
        self._client.will_set(availability, "offline", QOS, retain=True)
        if broker.user is not None:
            self._client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            self._client.tls_set_context(_context(broker.ca))

    @property
    def connected(self) -> bool:
        return bool(self._client.is_connected())

    @property
    def waiting(self) -> int:
        """Events that the broker has not acknowledged yet."""
        self._settle()
        return len(self._waiting)

    def connect(self) -> None:
        """Connect for the first time. Unreachable where nobody answers, StreamError where we are refused."""
        name, host = self._broker.name, f"{self._broker.host}:{self._broker.port}"
        try:
            self._client.connect(self._broker.host, self._broker.port, KEEP_ALIVE)
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or str(error)
            hint = "Name the certificate of who signed its own: #ca=FILE. Without TLS it is mqtt://."
            raise StreamError(f"{name}: no TLS connection to {host}: {reason}.", hint) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or redact(str(error)) or type(error).__name__
            raise Unreachable(f"{name}: no MQTT broker answers at {host}: {reason}.", "Is it on?") from None
        self._client.loop_start()
        if not self._answered.wait(self._broker.timeout):
            self._stop()
            hint = "Is it a broker? TLS has a port of its own: mqtts://."
            raise Unreachable(f"{name}: {host} gave no answer within {self._broker.timeout:g} s.", hint)
        if self._refusal:
            self._stop()
            hint = "Check user and password, and that they may publish there."
            raise StreamError(f"{name}: the broker refuses us: {self._refusal}.", hint)

    def connect_later(self) -> None:
        """Try again and again, from now on."""
        self._client.connect_async(self._broker.host, self._broker.port, KEEP_ALIVE)
        self._client.loop_start()

    def state(self, topic: str, payload: str) -> None:
        """Publish what is so from now on; nothing if the broker knows."""
        with self._lock:
            if self._states.get(topic) != payload:
                self._states[topic] = payload
                self._unsent[topic] = None
            if self._unsent and self.connected:  # else they are sent when we are
                self._send_states()

    def _send_states(self) -> None:
        for topic in list(self._unsent):
            if self._client.publish(topic, self._states[topic], QOS, retain=True).rc == FULL:
                return
            del self._unsent[topic]

    def event(self, topic: str, payload: str) -> None:
        """Publish what has happened, now or when the broker is there."""
        info = self._client.publish(topic, payload, QOS)
        if info.rc == FULL:
            self.lost += 1
        else:
            self._waiting.add(info.mid)
        self._settle()

    def _settle(self) -> None:
        while self._acknowledgments:
            mid = self._acknowledgments.popleft()
            self.acknowledged += mid in self._waiting
            self._waiting.discard(mid)

    def close(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for what was not acknowledged; the rest is lost. Then say that we are gone."""
        if self._closing:
            return
        self._closing = True
        until = time.monotonic() + timeout
        while self.waiting and time.monotonic() < until:
            time.sleep(0.02)
        if self.connected:
            last = self._client.publish(self._availability, "offline", QOS, retain=True)
            while last.mid not in self._acknowledgments and self.connected and time.monotonic() < until:
                time.sleep(0.02)
        self.lost += self.waiting
        self._waiting.clear()
        self._stop()

    def _stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    # The client's thread calls these.

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            if self._was_connected or self._refusal:
                log.warning("%s refuses us: %s.", self._broker.name, reason)
            self._refusal = str(reason)
        else:
            if self._was_connected:
                log.info("%s is connected again.", self._broker.name)
            self._refusal, self._was_connected = "", True
            with self._lock:
                self._unsent = dict.fromkeys(self._states)
                self._send_states()
        self._answered.set()

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if not self._closing and self._was_connected:
            log.warning("%s is gone (%s) and is tried again; events wait.", self._broker.name, reason)

    def _on_publish(self, client: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
        self._acknowledgments.append(mid)  # no lock: the client holds its own here


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca) if ca else None)
    except (OSError, ssl.SSLError) as error:
        raise FileError(f"{ca} cannot be used as certificates: {error.strerror}.", "Expected a PEM file.") from None
