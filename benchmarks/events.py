"""Zones, rules, privacy and MQTT: what they find, what they cost, and what a killed broker loses.

    python benchmarks/events.py BUNDLE [--scenes 100] [--kills 10] [--json FILE|-]

`scenes`: rendered streets through the bundle; the truth are the same rules on the exact masks. An event is found if one
of the same rule overlaps it in time. `cost`: microseconds per frame, medians, of rules on zones that cover a third of
the frame each, and milliseconds of hiding a class that covers a fifth of a 1280x720 frame. `mqtt` (needs mosquitto):
events that a subscriber got of those that were published while the broker was killed (SIGKILL) and started again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.cli.common import emit
from edgeseg.fit import fit_labels
from edgeseg.machine import fingerprint
from edgeseg.result import Frame, Result
from edgeseg.runtime import open_segmenter
from edgeseg.segmenter import Segmenter
from edgeseg.spec import Spec
from edgeseg.stream import sinks
from edgeseg.stream.events.rules import Rules, load
from edgeseg.stream.events.watch import Event, Watch
from edgeseg.stream.privacy import Privacy
from edgeseg.synth.street import Street

STEP = 2  # of the street's 25 frames a second
FRAMES = 80
RULES = """
[zones.lane]
points = [[0.30, 0.95], [0.47, 0.48], [0.56, 0.48], [0.75, 0.95]]
[zones.left]
points = [[0.0, 0.35], [0.3, 0.42], [0.3, 0.75], [0.0, 0.98]]
[zones.right]
points = [[0.7, 0.42], [1.0, 0.35], [1.0, 0.98], [0.7, 0.75]]
[rules.queue]
when = "share(car) > 15 % in lane for 0.4 s"
clear = "< 10 % for 0.4 s"
[rules.parked]
when = "share(car) > 12 % in left for 0.4 s"
clear = "< 8 % for 0.4 s"
[rules.walker-left]
when = "share(pedestrian) > 4 % in left for 0.4 s"
clear = "< 2 % for 0.4 s"
[rules.walker-right]
when = "share(pedestrian) > 4 % in right for 0.4 s"
clear = "< 2 % for 0.4 s"
"""
Span = tuple[str, float, float]


def spans(events: list[Event], end: float) -> list[Span]:
    """(rule, from, to) of each event, in seconds of the clip."""
    ends = {e.id: e.pts or 0.0 for e in events if e.event == "end"}
    return [(e.rule, e.pts or 0.0, ends.get(e.id, end)) for e in events if e.event == "start"]


def overlap(a: Span, b: Span) -> bool:
    return a[0] == b[0] and a[1] <= b[2] and b[1] <= a[2]


def scenes(segmenter: Segmenter, rules: Rules, count: int) -> dict[str, Any]:
    counted: Counter[str] = Counter()
    late = []
    for seed in range(count):
        street = Street(1000 + seed, height=224, width=384, night=0.5 * (seed % 5 == 4), fog=0.3 * (seed % 5 == 3))
        exact, found = Watch(rules, segmenter.spec), Watch(rules, segmenter.spec)
        expected: list[Event] = []
        got: list[Event] = []
        for i in range(FRAMES):
            image, mask = street.frame(i * STEP)
            frame = Frame(image, i, pts=i * STEP / 25)
            labels = fit_labels(mask, segmenter.spec, 255)
            expected += exact.update(Result(frame, labels, {}, spec=segmenter.spec)).events
            segmenter.submit(frame)
            got += found.update(segmenter.collect()).events
        end = FRAMES * STEP / 25
        true, seen = spans(expected, end), spans(got, end)
        counted["true"] += len(true)
        counted["found"] += sum(any(overlap(one, other) for other in seen) for one in true)
        counted["false"] += sum(not any(overlap(one, other) for other in true) for one in seen)
        late += [o[1] - t[1] for t in true for o in [next((s for s in seen if overlap(t, s)), None)] if o]
    missed = counted["true"] - counted["found"]
    within = sum(abs(seconds) <= 0.16 for seconds in late) / max(len(late), 1)
    return {"scenes": count, **counted, "missed": missed, "starts_within_2_frames": round(within, 3)}


def median_us(run: Callable[[], object], rounds: int = 400) -> float:
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return round(1e6 * statistics.median(times), 1)


def costs(segmenter: Segmenter) -> dict[str, Any]:
    spec, rows = segmenter.spec, {}
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (720, 1280, 3), np.uint8)
    frame_us = median_us(lambda: segmenter(image), 200)
    for zones in (1, 4, 16):
        for width, height in ((spec.width, spec.height), (512, 512), (1280, 720)):
            of = replace(spec, width=width, height=height)
            classmap = rng.integers(0, len(spec.classes), (height, width), np.uint8)
            watching = Watch(triangles(zones, spec), of)
            result = Result(Frame(image), classmap, {}, spec=of)
            rows[f"{zones} zones, {width}x{height}"] = median_us(lambda: watching.update(result))  # noqa: B023
    classmap = np.zeros((spec.height, spec.width), np.uint8)
    classmap[: round(0.45 * spec.height), : round(0.45 * spec.width)] = 1
    hidden, plain = Result(Frame(image), classmap, {}, spec=spec), Result(Frame(image), classmap * 0, {}, spec=spec)
    name = spec.classes[1]
    blur, fill = Privacy.of(spec, (name,), ()), Privacy.of(spec, (), (name,))
    assert blur and fill
    privacy = {
        "blur_ms": median_us(lambda: blur.applied(hidden)) / 1e3,
        "fill_ms": median_us(lambda: fill.applied(hidden)) / 1e3,
        "nothing_to_hide_ms": median_us(lambda: blur.applied(plain)) / 1e3,
    }
    return {"frame_us": frame_us, "rules_us": rows, "privacy_720p": privacy}


def triangles(count: int, spec: Spec) -> Rules:
    text = ""
    for i in range(count):
        x = 0.02 * i
        text += f"[zones.z{i}]\npoints = [[{x}, 0.0], [{x + 0.66}, 0.1], [{x + 0.1}, 1.0]]\n"
        text += f'[rules.r{i}]\nwhen = "share({spec.classes[0]}) > 50 % in z{i} for 1 s"\n'
    return rules_of(text)


def rules_of(text: str) -> Rules:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "zones.toml").write_text(text)
        return load(Path(folder) / "zones.toml")


def killed_broker(spec: Spec, kills: int) -> dict[str, Any]:
    """A broker that is killed again and again while events are published, about 100 a second."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    rules = rules_of(f'[rules.seen]\nwhen = "{spec.classes[1]} in frame"\n')
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        config = Path(folder) / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {folder}/\n"
            "autosave_interval 1\nautosave_on_changes true\nuser root\n"
        )
        got: list[dict[str, Any]] = []
        observer = Client(CallbackAPIVersion.VERSION2, "observer", clean_session=False)
        observer.reconnect_delay_set(1, 1)
        observer.on_connect = lambda client, *_: client.subscribe("site/event", 1)
        observer.on_message = lambda _, __, message: got.append(json.loads(message.payload))
        broker = Mosquitto(config, port)
        try:
            broker.start()
            observer.connect("127.0.0.1", port)
            observer.loop_start()
            sink = sinks.open(f"mqtt://127.0.0.1:{port}/site", sinks.Info(spec, live=True, rules=rules))
            sent = publish(sink, Watch(rules, spec), broker, kills)
            sink.close()
            time.sleep(2)  # for what is still on its way to the observer
        finally:
            observer.disconnect()
            observer.loop_stop()
            broker.kill()
    distinct = {(event["id"], event["event"]) for event in got}
    return {"kills": kills, "events": sent, "received": len(distinct), "twice": len(got) - len(distinct),
            "counted_as_lost": sink.lost}  # fmt: skip


def publish(sink: sinks.Sink, watching: Watch, broker: Mosquitto, kills: int) -> int:
    """An event with each frame, about 100 a second; every 2 s the broker is gone for half a second. How many events."""
    spec, sent = watching.spec, 0
    for i in range(kills * 200):
        if i % 200 == 80:
            broker.kill()
        if i % 200 == 130:
            broker.start()
        classmap = np.full((spec.height, spec.width), i % 2, np.uint8)
        result = Result(Frame(np.zeros((8, 8, 3), np.uint8), i, pts=i / 100), classmap, {}, spec=spec)
        observation = watching.update(result)
        sent += len(observation.events)
        sink.observe(observation)
        sink.write(result, None)
        time.sleep(0.01)
    return sent


class Mosquitto:
    def __init__(self, config: Path, port: int):
        self._config, self._port = config, port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(["mosquitto", "-c", str(self._config)], **quiet)
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--json", metavar="FILE", help="write the figures here, - for standard output")
    options = parser.parse_args()
    with open_segmenter(options.bundle, "latency") as segmenter:
        figures: dict[str, Any] = {"bundle": options.bundle.name, "machine": asdict(fingerprint())}
        measured: dict[str, Callable[[], Any]] = {
            "cost": lambda: costs(segmenter),
            "mqtt": lambda: killed_broker(segmenter.spec, options.kills) if shutil.which("mosquitto") else None,
            "scenes": lambda: scenes(segmenter, rules_of(RULES), options.scenes),
        }
        for name, measure in measured.items():
            figures[name] = measure()
            sys.stderr.write(f"{name}: {json.dumps(figures[name], indent=1)}\n")
    emit(figures, options.json)


if __name__ == "__main__":
    main()
