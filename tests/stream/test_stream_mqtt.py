"""MQTT against a real broker (mosquitto): states and events, Home Assistant, refusals, and a broker that is killed."""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stream_helpers import SPEC, frame_image

from edgeseg.errors import FileError, MissingPackage, OptionError, StreamError
from edgeseg.result import Decision, Frame, Result
from edgeseg.stream import sinks
from edgeseg.stream.events.rules import Rules, load
from edgeseg.stream.events.watch import Watch
from edgeseg.stream.events.zones import FRAME
from edgeseg.stream.home_assistant import discovery, slug
from edgeseg.stream.mqtt import Unreachable

paho = pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt: pip install 'edgeseg[mqtt]'")
needs_broker = pytest.mark.skipif(not shutil.which("mosquitto"), reason="needs mosquitto")
ZONES = """
[zones.gate]
points = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
[rules.parked]
when = "car in gate"
[rules.empty]
when = "share(car + tree) < 10 % in gate for 0.3 s"
"""


class Broker:
    """mosquitto on a free port; `lines` of its configuration are added."""

    def __init__(self, folder: Path, *lines: str, anonymous: bool = True):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._config = folder / "mosquitto.conf"
        settings = [
            f"listener {self.port} 127.0.0.1", f"allow_anonymous {str(anonymous).lower()}", "persistence true",
            f"persistence_location {folder}/", "autosave_interval 1", "autosave_on_changes true", "user root", *lines,
        ]  # fmt: skip
        self._config.write_text("\n".join(settings) + "\n")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["mosquitto", "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(lambda: socket.socket().connect_ex(("127.0.0.1", self.port)) == 0)

    def stop(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(10)
            self.process = None


class Subscriber:
    """Everything that is published, kept by the broker while we are away (a persistent session)."""

    def __init__(self, port: int, **login: str):
        self.messages: list[tuple[str, str, bool]] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, "observer", clean_session=False)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _, __, m: self.messages.append((m.topic, m.payload.decode(), m.retain))
        if login:
            self._client.username_pw_set(**login)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def payloads(self, topic: str) -> list[str]:
        return [payload for at, payload, _ in self.messages if at == topic]

    def last(self, topic: str) -> str | None:
        return self.payloads(topic)[-1] if self.payloads(topic) else None


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    running = Broker(tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def observer(broker: Broker) -> Iterator[Subscriber]:
    subscriber = Subscriber(broker.port)
    yield subscriber
    subscriber.close()


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    (tmp_path / "zones.toml").write_text(ZONES)
    return load(tmp_path / "zones.toml")


class Feed:
    """Results at ten a second of media time, through a Watch into a sink."""

    def __init__(self, sink: sinks.Sink, rules: Rules | None) -> None:
        self.sink = sink
        self.watch = Watch(rules or Rules(zones={FRAME.name: FRAME}), SPEC, "front", fps=10.0)
        self.sent: list[dict[str, Any]] = []
        self._index = 0

    def __call__(self, parked: bool, decision: Decision | None = None) -> None:
        classmap = np.zeros((SPEC.height, SPEC.width), np.uint8)
        classmap[:, : SPEC.width // 2] = 3 * parked
        result = Result(Frame(frame_image(0), self._index, pts=self._index / 10), classmap, {}, spec=SPEC)
        result = replace(result, decision=decision)
        observation = self.watch.update(result)
        self.sent += [event.to_dict() for event in observation.events]
        self.sink.observe(observation)
        self.sink.write(result, None)
        self._index += 1

    def close(self) -> None:
        last = self.watch.stop()
        self.sent += [event.to_dict() for event in last]
        self.sink.conclude(last)
        self.sink.close()


def opened(broker: Broker, rules: Rules | None, options: str = "", live: bool = False, user: str = "") -> Feed:
    info = sinks.Info(SPEC, 10.0, live, "front", rules=rules)
    return Feed(sinks.open(f"mqtt://{user}127.0.0.1:{broker.port}/site/front{options}", info), rules)


@needs_broker
def test_rules_zones_and_events_are_published(broker: Broker, observer: Subscriber, rules: Rules) -> None:
    feed = opened(broker, rules, "#every=0.5")
    for parked in (0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1):
        feed(bool(parked))
    feed.close()
    wait_for(lambda: observer.last("site/front/availability") == "offline")
    assert observer.payloads("site/front/availability") == ["online", "offline"]
    assert observer.payloads("site/front/rule/parked") == ["OFF", "ON", "OFF", "ON", "OFF"]
    assert [json.loads(text) for text in observer.payloads("site/front/event")] == feed.sent and len(feed.sent) == 6
    shares = [json.loads(text) for text in observer.payloads("site/front/zone/gate")]
    empty, parked = {"road": 100.0, "tree": 0.0, "car": 0.0}, {"tree": 0.0, "car": 100.0}
    assert shares == [empty, parked, empty]
    assert feed.sink.lost == 0 and feed.sink.warnings == []
    late = Subscriber(broker.port)  # states are retained, events are not
    states = {f"site/front/{name}" for name in ("availability", "rule/parked", "rule/empty", "zone/gate")}
    wait_for(lambda: {topic for topic, _, retained in late.messages if retained} >= states)
    assert late.payloads("site/front/event") == []
    late.close()


@needs_broker
def test_without_rules_the_frame_is_a_zone(broker: Broker, observer: Subscriber) -> None:
    feed = opened(broker, None, "#discovery=0")
    feed(True)
    feed.close()
    wait_for(lambda: observer.last("site/front/availability") == "offline")
    assert json.loads(observer.last("site/front/zone/frame") or "") == {
        "road": 50.0,
        "sky": 0.0,
        "tree": 0.0,
        "car": 50.0,
    }
    assert not [topic for topic, *_ in observer.messages if topic.startswith("homeassistant")]


@needs_broker
def test_undecided_results_are_a_state_that_does_not_flap(broker: Broker, observer: Subscriber) -> None:
    info = sinks.Info(SPEC, 10.0, name="front", review=True)
    feed = Feed(sinks.open(f"mqtt://127.0.0.1:{broker.port}/site/front#every=0.5", info), None)
    for undecided in (0, 1, 0, 1, 0, 0, 0, 0, 0, 0):  # ten a second
        feed(False, Decision(0.3, ("confidence",) * undecided))
    feed.close()
    wait_for(lambda: observer.last("site/front/availability") == "offline")
    assert observer.payloads("site/front/undecided") == ["OFF", "ON", "OFF"]
    config = observer.last("homeassistant/binary_sensor/site_front/_undecided/config")
    assert config and json.loads(config)["state_topic"] == "site/front/undecided"


@needs_broker
def test_the_last_will_says_that_we_are_gone(broker: Broker, observer: Subscriber, rules: Rules) -> None:
    feed = opened(broker, rules)
    feed(False)
    wait_for(lambda: observer.last("site/front/availability") == "online")
    publisher: Any = feed.sink._publisher  # type: ignore[attr-defined]
    publisher._client._sock_close()  # as if the cable were pulled out
    wait_for(lambda: "offline" in observer.payloads("site/front/availability"))
    wait_for(lambda: observer.last("site/front/availability") == "online")
    feed.close()


@needs_broker
def test_a_broker_that_is_killed_and_restarted_gets_everything(
    broker: Broker, observer: Subscriber, rules: Rules, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    feed = opened(broker, rules)
    for i in range(400):
        feed(bool(i // 2 % 2))
        if i in (100, 250):
            broker.stop(signal.SIGKILL)
        if i in (160, 330):
            broker.start()
        time.sleep(0.002)
    publisher: Any = feed.sink._publisher  # type: ignore[attr-defined]
    wait_for(lambda: publisher.waiting == 0, 30)
    feed.close()
    wait_for(lambda: observer.last("site/front/availability") == "offline")
    got = {(event["id"], event["event"]) for event in map(json.loads, observer.payloads("site/front/event"))}
    assert len(feed.sent) > 150 and got == {(event["id"], event["event"]) for event in feed.sent}
    assert feed.sink.lost == 0 and feed.sink.warnings == [] and publisher.acknowledged == len(feed.sent)
    assert "is gone" in caplog.text and "is connected again" in caplog.text
    assert observer.last("site/front/rule/parked") == "OFF" and observer.payloads(
        "homeassistant/binary_sensor/site_front/parked/config"
    )


@needs_broker
def test_a_broker_that_lost_its_memory_gets_the_states_again(broker: Broker, rules: Rules, tmp_path: Path) -> None:
    feed = opened(broker, rules)
    feed(True)
    broker.stop(signal.SIGKILL)
    for database in tmp_path.glob("mosquitto.db*"):
        database.unlink()
    broker.start()
    late = Subscriber(broker.port)
    wait_for(lambda: late.last("site/front/rule/parked") == "ON")
    assert late.last("site/front/availability") == "online"
    wait_for(lambda: late.payloads("homeassistant/sensor/site_front/gate_0_car/config"))
    late.close()
    feed.close()


@needs_broker
def test_what_does_not_fit_the_queue_is_counted(broker: Broker, rules: Rules) -> None:
    feed = opened(broker, rules, "#queue=10")
    feed(False)
    publisher: Any = feed.sink._publisher  # type: ignore[attr-defined]
    wait_for(lambda: not publisher._client._out_messages)
    broker.stop()
    wait_for(lambda: not publisher.connected)
    for i in range(40):
        feed(bool(i % 2))
    assert feed.sink.lost == len(feed.sent) - 10
    feed.sink.close()
    assert feed.sink.lost == len(feed.sent), "nor did the others get there"
    assert "events that the broker did not get" in feed.sink.warnings[0]


@needs_broker
def test_states_that_find_the_queue_full_are_sent_when_it_is_not(broker: Broker, rules: Rules, tmp_path: Path) -> None:
    feed = opened(broker, rules, "#queue=5&every=0.1")
    feed(False)
    publisher: Any = feed.sink._publisher  # type: ignore[attr-defined]
    wait_for(lambda: not publisher._client._out_messages)
    broker.stop()
    wait_for(lambda: not publisher.connected)
    for database in tmp_path.glob("mosquitto.db*"):
        database.unlink()
    for i in range(21):
        feed(bool(i % 2 == 0))
    broker.start()
    late = Subscriber(broker.port)
    until = time.monotonic() + 20
    while late.last("site/front/zone/gate") is None or late.last("site/front/rule/parked") != "ON":
        feed(True)
        assert time.monotonic() < until
        time.sleep(0.02)
    wait_for(lambda: late.last("site/front/availability") == "online")
    late.close()
    feed.close()


def test_a_dead_broker_is_an_error_for_files_and_waited_for_by_cameras(
    tmp_path: Path, rules: Rules, caplog: pytest.LogCaptureFixture
) -> None:
    late = Broker(tmp_path)
    with pytest.raises(
        Unreachable, match=r"mqtt://\*\*\*@127.0.0.1:\d+/site/front.*: no MQTT broker answers at 127.0.0.1:\d+"
    ):
        opened(late, rules, user="me:hunter2@")
    feed = opened(late, rules, live=True, user="me:hunter2@")
    assert "It is waited for." in caplog.text and "hunter2" not in caplog.text
    for parked in (0, 1, 0):
        feed(bool(parked))
    if not shutil.which("mosquitto"):
        feed.sink.close()
        return
    late.start()
    publisher: Any = feed.sink._publisher  # type: ignore[attr-defined]
    wait_for(lambda: publisher.waiting == 0 and publisher.acknowledged == 2)
    feed.close()
    late.stop()


def test_a_server_that_is_no_broker(rules: Rules) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        uri = f"mqtt://127.0.0.1:{mute.getsockname()[1]}/x#timeout=0.3"
        with pytest.raises(Unreachable, match=r"gave no answer within 0.3 s.\nIs it a broker\? TLS has a port"):
            sinks.open(uri, sinks.Info(SPEC, rules=rules))


@needs_broker
@pytest.mark.parametrize("live", [False, True])
def test_a_broker_that_refuses_us_is_an_error(tmp_path: Path, rules: Rules, live: bool) -> None:
    password_file = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(password_file), "me", "hunter2"], check=True)
    guarded = Broker(tmp_path, f"password_file {password_file}", anonymous=False)
    guarded.start()
    try:
        with pytest.raises(StreamError, match=r"the broker refuses us: .*(authori|password).*\nCheck user") as caught:
            opened(guarded, rules, user="me:wrongword@", live=live)
        assert "wrongword" not in str(caught.value) and not isinstance(caught.value, Unreachable)
        feed = opened(guarded, rules, user="me:hunter2@", live=live)
        feed(True)
        feed.close()
        assert feed.sink.lost == 0
    finally:
        guarded.stop()


@needs_broker
def test_tls(tmp_path: Path, rules: Rules) -> None:
    certificate, key = self_signed(tmp_path)
    secure = Broker(tmp_path, f"certfile {certificate}", f"keyfile {key}")
    secure.start()
    info = sinks.Info(SPEC, rules=rules)
    uri = f"mqtts://127.0.0.1:{secure.port}/x"
    try:
        with pytest.raises(
            StreamError, match=r"no TLS connection to 127.0.0.1:\d+: self-signed certificate.\n.*#ca=FILE"
        ):
            sinks.open(uri, info)
        with pytest.raises(StreamError, match=r"gave no answer|no MQTT broker answers"):
            sinks.open(uri.replace("mqtts", "mqtt") + "#timeout=1", info)
        feed = Feed(sinks.open(f"{uri}#ca={certificate}", info), rules)
        feed(True)
        feed.close()
        assert feed.sink.lost == 0
    finally:
        secure.stop()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    x509 = pytest.importorskip("cryptography.x509", reason="needs cryptography: pip install 'edgeseg[sign]'")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(pem)
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mqtt://h", r"mqtt://h has no topic.\nExpected mqtt://user:password@host:1883/topic"),
        ("mqtt:///topic", "has no host"),
        ("mqtt://h:port/x", "is not an address"),
        ("mqtt://me:hunter2@h:99999/x", r"mqtt://\*\*\*@h:99999/x is not an address"),
        ("mqtt://h/a/+/b", r"'a/\+/b' is no topic to publish to"),
        ("mqtt://h/$SYS/x", "is no topic to publish to"),
        ("mqtt://h/a//b", "is no topic to publish to"),
        ("mqtt://h/a?every=3", r"'a' is no topic to publish to.\n.*; options follow #"),
        ("mqtt://h/x#evry=3", "Unknown option of mqtt://h/x#evry.* 'evry'.\nDid you mean 'every'"),
        ("mqtt://h/x#discovery=a/+", "Expected a topic of letters"),
        ("mqtt://h/x#queue=0", "Expected a whole number from 1 to 60000"),
        ("mqtts://h/x#ca=/nowhere.pem", "Expected a file that exists"),
        ("mqtt://h/x#ca=/etc/passwd", "ca= without TLS"),
        ("mqtts://h/x#ca=/etc/passwd", "/etc/passwd cannot be used as certificates"),
        ("mqt://h/x", "Unknown kind of sink 'mqt://'.\nDid you mean 'mqtt'"),
    ],
)
def test_wrong_addresses(uri: str, message: str) -> None:
    with pytest.raises((OptionError, FileError), match=message) as caught:
        sinks.open(uri, sinks.Info(SPEC))
    assert "hunter2" not in str(caught.value)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(MissingPackage, match=r"needs the package paho-mqtt, .*\n.*edgeseg\[mqtt\]"):
        sinks.open("mqtt://h/x", sinks.Info(SPEC))


# Home Assistant: its keys and types, as its documentation lists them for these two kinds of entity
# (https://www.home-assistant.io/integrations/binary_sensor.mqtt/ and sensor.mqtt/).
COMMON = {
    "name": str,
    "unique_id": str,
    "state_topic": str,
    "availability_topic": str,
    "qos": int,
    "device": dict,
    "origin": dict,
}
BINARY = {**COMMON, "payload_on": str, "payload_off": str}
SENSOR = {
    **COMMON,
    "value_template": str,
    "unit_of_measurement": str,
    "state_class": str,
    "suggested_display_precision": int,
}
TOPIC = r"homeassistant/(binary_sensor|sensor)/[a-zA-Z0-9_-]+/[a-zA-Z0-9_-]+/config"


def test_discovery_is_what_home_assistant_documents(rules: Rules) -> None:
    names = {"gate": ("car", "traffic light", "it's {{ odd }}"), "frame": ("Straße", "Strasse")}
    found = list(discovery("site/front 1", "front", rules.rules, names))
    assert len(found) == 7 and len({topic for topic, _ in found}) == len({p["unique_id"] for _, p in found}) == 7
    for topic, payload in found:
        kind = re.fullmatch(TOPIC, topic)
        assert kind, topic
        assert {key: type(value) for key, value in payload.items()} == (
            BINARY if kind[1] == "binary_sensor" else SENSOR
        )
        assert set(payload["device"]) <= {"identifiers", "name", "manufacturer", "model", "sw_version"}
        assert payload["device"]["identifiers"] == ["site_front_1"] and set(payload["origin"]) <= {"name", "sw_version"}
        assert (
            payload["state_topic"].startswith("site/front 1/")
            and payload["availability_topic"] == "site/front 1/availability"
        )
    assert slug("+++") == "edgeseg"


def test_templates_find_any_class(rules: Rules) -> None:
    jinja = pytest.importorskip("jinja2")
    name = "it's \\ {{ odd }}"
    ((_, payload),) = discovery("b", "s", (), {"gate": (name,)})
    assert jinja.Template(payload["value_template"]).render(value_json={name: 12.5}) == "12.5"
