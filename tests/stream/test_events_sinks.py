"""What becomes of events: lines, pictures and clips, posts; and nothing of it is lost where a sink fails or is slow."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from stream_helpers import COLORS, SPEC, bundle, read_back, segmenter

from edgeseg.errors import FileError, OptionError, StreamError
from edgeseg.images import Image
from edgeseg.result import Frame, Result
from edgeseg.stream import assemble, config, loop, sinks
from edgeseg.stream.clock import SYSTEM_CLOCK
from edgeseg.stream.events.clips import ClipRecorder
from edgeseg.stream.events.rules import Rules, load
from edgeseg.stream.events.watch import Event, Observation, Watch
from edgeseg.stream.pipeline import Stream
from edgeseg.stream.reconnect import ReconnectingSink
from edgeseg.stream.sources import EndOfStream, Source
from edgeseg.stream.timings import StageTimings
from edgeseg.stream.writer import RenderedResult, Writer

EDGESEG = [sys.executable, "-c", "from edgeseg.cli import main; main()"]
ZONES = """
[zones.gate]
points = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
[rules.parked]
when = "share(car) > 50 % in gate for 0.4 s"
clear = "< 20 % for 0.2 s"
"""
ROAD, CAR = COLORS[0], COLORS[3]


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    (tmp_path / "zones.toml").write_text(ZONES)
    return load(tmp_path / "zones.toml")


def scene(parked: bool, size: tuple[int, int] = (128, 192)) -> Image:
    image = np.ascontiguousarray(np.broadcast_to(ROAD, (*size, 3)))
    if parked:
        image[:, : size[1] // 2] = CAR
    return image


class Scenes(Source):
    """Frames at 10 a second of media time, a car in the zone where `parked` says so."""

    fps = 10.0

    def __init__(self, parked: list[int], size: tuple[int, int] = (128, 192)):
        super().__init__()
        self._images = enumerate([scene(bool(p), size) for p in parked])
        self.count = len(parked)

    def read(self, timeout: float) -> Frame:
        for i, image in self._images:
            return Frame(image, i, pts=i / 10)
        raise EndOfStream


TWO_EVENTS = [0] * 10 + [1] * 10 + [0] * 10 + [1] * 10


def run(rules: Rules, *uris: str, parked: list[int] = TWO_EVENTS, size: tuple[int, int] = (128, 192)) -> loop.Run:
    info = sinks.Info(SPEC, 10.0, name="front", rules=rules)
    opened = [sinks.open(uri, info) for uri in uris]
    stream = Stream(Scenes(parked, size), opened, "front", Watch(rules, SPEC, "front", fps=10.0))
    going = loop.Run(segmenter(), [stream], overlay=False)
    summary = going.go()
    assert summary.error is None, summary.error
    return going


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_are_lines_with_a_picture_and_a_clip(tmp_path: Path, rules: Rules) -> None:
    going = run(rules, f"events://{tmp_path}/out/events.jsonl?clip=1s")
    rows = lines(tmp_path / "out" / "events.jsonl")
    assert [(r["event"], r["frame"], r["reason"]) for r in rows] == [
        ("start", 14, ""), ("end", 22, "cleared"), ("start", 34, ""), ("end", 39, "stopped")
    ]  # fmt: skip
    assert [r["pts"] for r in rows] == [1.4, 2.2, 3.4, 3.9] and rows[0]["id"] == rows[1]["id"] != rows[2]["id"]
    assert rows[0] | {"rule": "parked", "zone": "gate", "stream": "front", "kind": "event", "schema": 1} == rows[0]
    assert rows[1]["seconds"] == pytest.approx(1.0) and rows[1]["peak"] == 1.0 and rows[1]["share"] == 0.0
    for row, frames in ((rows[0], range(4, 25)), (rows[2], range(24, 40))):
        picture = cv2.imread(str(tmp_path / "out" / row["snapshot"]))
        assert np.abs(picture[100, 40].astype(int) - CAR).max() < 30, "the frame that began the event"
        clip = read_back(tmp_path / "out" / row["clip"])
        assert len(clip) == len(frames), "a second before the event and one after"
        shown = [bool(np.abs(image[100, 40].astype(int) - CAR).max() < 60) for image in clip]
        assert shown == [bool(TWO_EVENTS[i]) for i in frames]
    assert set(going.files()) == {tmp_path / "out" / "events.jsonl", tmp_path / "out" / "events"}


def test_pictures_and_clips_may_be_left_out(tmp_path: Path, rules: Rules) -> None:
    run(rules, f"events://{tmp_path}/e.jsonl?clip=0s&snapshot=0")
    assert len(lines(tmp_path / "e.jsonl")) == 4 and "clip" not in lines(tmp_path / "e.jsonl")[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.jsonl", "zones.toml"]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("events://e.mp4", "does not name a file of JSON lines.\nExpected events://FILE.jsonl"),
        ("events://.jsonl", "does not name a file of JSON lines"),
        ("events://e.jsonl?clop=1s", "Unknown option of events://e.jsonl.* 'clop'.\nDid you mean 'clip'"),
        ("events://e.jsonl?clip=1", "Option clip='1' .* is not usable.\nExpected a time such as 30s"),
        ("webhook+http://h/x#on=never", "Option on='never' .* is not usable.\nExpected one of result, change"),
        ("webhook+http://h/x#on=change&every=2", "every= is for results, image= for events"),
        ("webhook+http://h/x#image=1", "every= is for results, image= for events"),
    ],
)
def test_wrong_sinks_of_events(rules: Rules, uri: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        sinks.open(uri, sinks.Info(SPEC, rules=rules))


@pytest.mark.parametrize("uri", ["events://e.jsonl", "webhook+http://h/x#on=change"])
def test_events_need_rules(uri: str) -> None:
    with pytest.raises(OptionError, match=r"takes events, but there are no rules for the stream 'front'.\nAdd --rules"):
        sinks.open(uri, sinks.Info(SPEC, name="front"))


def test_a_file_where_the_folder_of_pictures_should_be(tmp_path: Path, rules: Rules) -> None:
    (tmp_path / "e").write_text("")
    with pytest.raises(FileError, match=r"/e is a file, but pictures of events go there"):
        sinks.open(f"events://{tmp_path}/e.jsonl", sinks.Info(SPEC, rules=rules))


def test_old_pictures_and_clips_are_removed_and_nothing_else(tmp_path: Path, rules: Rules) -> None:
    folder = tmp_path / "e"
    folder.mkdir()
    old = [folder / f"20250101T000000Z-front-parked-0001.{suffix}" for suffix in ("jpg", "mp4")]
    others = [folder / "20250101T000000Z-holiday.jpg", folder / "20990101T000000Z-parked-0001.jpg"]
    for path in (*old, *others):
        path.write_text("")
    run(rules, f"events://{tmp_path}/e.jsonl?clip=0s&keep=30d")
    assert not any(path.exists() for path in old) and all(path.exists() for path in others)
    assert len(list(folder.iterdir())) == 4


def test_the_memory_of_a_clip_is_bounded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    written: list[Path] = []
    recorder = ClipRecorder(5.0, 1.0, 300_000, written.append)
    for i in range(60):
        recorder.add(rng.integers(0, 255, (128, 192, 3), np.uint8), i / 10)
        assert sum(len(shot.jpeg) for shot in recorder._ring) <= 300_000
        if i == 40:
            recorder.begin(tmp_path / "c.mp4", i / 10)
    assert recorder.close() and not recorder.close()
    assert recorder.shortened and recorder.lost == 0 and written == [tmp_path / "c.mp4"]
    assert 5 < len(read_back(tmp_path / "c.mp4")) < 30


def test_clips_of_a_stream_that_changes_its_size_have_the_first_one(tmp_path: Path) -> None:
    recorder = ClipRecorder(1.0, 1.0, 10**7, lambda path: None)
    for i, height in enumerate([64] * 5 + [96] * 5):
        recorder.add(np.zeros((height, 128, 3), np.uint8), i / 10)
    recorder.begin(tmp_path / "c.mp4", 0.5)
    recorder.close()
    assert {image.shape for image in read_back(tmp_path / "c.mp4")} == {(64, 128, 3)}


def test_a_clip_that_cannot_be_written_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorder = ClipRecorder(1.0, 1.0, 10**7, lambda path: None)
    (tmp_path / "file").write_text("")
    recorder.add(np.zeros((64, 64, 3), np.uint8), 0.0)
    recorder.begin(tmp_path / "file" / "c.mp4", 0.0)
    recorder.close()
    assert recorder.lost == 1 and "c.mp4 is lost: Cannot write" in caplog.text


def observed(rules: Rules, parked: list[int]) -> list[tuple[Result, Observation]]:
    watching = Watch(rules, SPEC, "front", fps=10.0)
    results = []
    for i, p in enumerate(parked):
        classmap = np.zeros((SPEC.height, SPEC.width), np.uint8)
        classmap[:, : SPEC.width // 2] = 3 * p
        results.append(Result(Frame(scene(bool(p)), i, pts=i / 10), classmap, {}, spec=SPEC))
    return [(result, watching.update(result)) for result in results]


class Gathers(sinks.Sink):
    needs_events = True

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.results = 0
        self.gate = threading.Event()
        self.fail_at: set[int] = set()

    def observe(self, observation: Observation) -> None:
        self._events = observation.events

    def write(self, result: Result, image: Image | None) -> None:
        self.gate.wait(10)
        self.results += 1
        if result.frame.index in self.fail_at:
            raise StreamError("broken")
        self.events += self._events

    def conclude(self, events: tuple[Event, ...]) -> None:
        self.events += events


def test_events_of_dropped_results_come_with_the_next(rules: Rules) -> None:
    sink = Gathers()
    writer = Writer(sink, "", live=True, timings=StageTimings(), clock=SYSTEM_CLOCK)
    writer.start()
    sent: list[Event] = []
    for result, observation in observed(rules, TWO_EVENTS * 5):
        rendered = RenderedResult(result, lambda r: r.frame.image)
        rendered.observation = observation
        sent += observation.events
        writer.put(rendered)
    sink.gate.set()
    last = dataclasses.replace(sent[-1], event="end", frame=10**6)
    writer.finish((last,))
    assert writer.join(10) and sink.results < 5 and writer.dropped > 190
    assert sink.events == [*sent, last] and len(sent) > 15


def test_events_wait_for_a_sink_that_is_opened_again(rules: Rules) -> None:
    opened: list[Gathers] = []

    def reopen(part: int = 0) -> sinks.Sink:
        opened.append(Gathers())
        opened[-1].gate.set()
        opened[-1].fail_at = {14, 15, 22}
        return opened[-1]

    sink = ReconnectingSink(reopen(), reopen, first_delay=0.0)
    sent = []
    for result, observation in observed(rules, TWO_EVENTS):
        sent += observation.events
        sink.observe(observation)
        sink.write(result, None)
    sink.conclude(())
    sink.close()
    assert sink.lost == 3 and len(opened) == 4 and [e.id for e in sent] == [e.id for o in opened for e in o.events]


@pytest.fixture
def hook() -> Iterator[Any]:
    """A real HTTP server; `posts` is what it got; it answers with `statuses` in turn."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(next(server.statuses))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server: Any = HTTPServer(("127.0.0.1", 0), Handler)
    server.posts, server.statuses = [], itertools.repeat(200)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_webhook_gets_changes_alone_with_a_picture(hook: Any, rules: Rules) -> None:
    run(rules, f"webhook+http://127.0.0.1:{hook.server_port}/x#on=change&image=1")
    assert [(post["event"], post["frame"]) for post in hook.posts] == [
        ("start", 14), ("end", 22), ("start", 34), ("end", 39)
    ]  # fmt: skip
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(hook.posts[0]["image"]), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and np.abs(picture[100, 40].astype(int) - CAR).max() < 30
    assert "image" not in hook.posts[1]


def test_a_webhook_posts_an_event_again_until_it_is_taken(hook: Any, rules: Rules, monkeypatch) -> None:
    hook.statuses = itertools.chain([503, 500, 200, 404], itertools.repeat(200))
    sink = sinks.open(f"webhook+http://127.0.0.1:{hook.server_port}/x#on=change", sinks.Info(SPEC, rules=rules))
    monkeypatch.setattr(sink, "_closing", Impatient())
    for result, observation in observed(rules, TWO_EVENTS):
        sink.observe(observation)
        sink.write(result, None)
    until = time.monotonic() + 10
    while len(hook.posts) < 5 and time.monotonic() < until:
        time.sleep(0.01)
    sink.close()
    assert [post["event"] for post in hook.posts] == ["start", "start", "start", "end", "start"]
    assert sink.lost == 1, "the one that was refused for good (404)"


class Impatient(threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(0.01)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'edgeseg[openvino]'")
    return bundle(tmp_path_factory.mktemp("model") / "colors")


def movie(path: Path, parked: list[int]) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (192, 128))
    for p in parked:
        writer.write(scene(bool(p)))
    writer.release()
    return path


def edgeseg(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*EDGESEG, *map(str, words)], capture_output=True, text=True, timeout=60)


def test_the_command_line(tmp_path: Path, model: Path, rules: Rules) -> None:
    clip = movie(tmp_path / "a.avi", TWO_EVENTS)
    done = edgeseg("run", model, "--source", clip, "--rules", rules.path, "--sink", f"events://{tmp_path}/e.jsonl")
    assert done.returncode == 0, done.stderr
    assert [(r["event"], r["frame"]) for r in lines(tmp_path / "e.jsonl")] == [
        ("start", 14), ("end", 22), ("start", 34), ("end", 39)
    ]  # fmt: skip
    done = edgeseg("zones", clip, "--rules", rules.path, "--out", tmp_path / "z.png")
    assert done.returncode == 0 and "share(car) > 50 % in gate" in done.stdout
    picture = cv2.imread(str(tmp_path / "z.png"))
    assert picture.shape == (128, 192, 3) and (picture[64, 10] != picture[64, 150]).any()


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (ZONES.replace("car", "cart"), ["--sink", "events://{}/e.jsonl"], "rules.parked: Unknown class 'cart'"),
        (ZONES + "[zones.b]\nstreams = ['x']\npoints = [[0,0],[1,0],[1,1]]", ["--sink", "events://{}/e.jsonl"],
         "zones.b: Unknown stream 'x'"),
        (ZONES, ["--sink", "{}/log.jsonl"], "No sink takes the events of .*zones.toml"),
    ],
)  # fmt: skip
def test_wrong_rules_are_errors_before_anything_runs(tmp_path: Path, model: Path, text, words, message) -> None:
    (tmp_path / "zones.toml").write_text(text)
    done = edgeseg(
        "run", model, "--source", movie(tmp_path / "a.avi", [0] * 5), "--rules", tmp_path / "zones.toml",
        *(word.format(tmp_path) for word in words),
    )  # fmt: skip
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr


def test_rules_in_a_config_are_of_one_stream_or_of_all(tmp_path: Path, model: Path, rules: Rules) -> None:
    movie(tmp_path / "a.avi", TWO_EVENTS)
    (tmp_path / "own.toml").write_text(ZONES.replace("parked", "own"))
    (tmp_path / "stream.toml").write_text(
        f'bundle = "{model}"\nrules = "zones.toml"\n'
        '[[stream]]\nname = "a"\nsource = "a.avi"\nsinks = ["events://a.jsonl?clip=0s"]\n'
        '[[stream]]\nname = "b"\nsource = "a.avi"\nsinks = ["events://b.jsonl?clip=0s"]\nrules = "own.toml"\n'
    )
    settings = config.load(tmp_path / "stream.toml")
    with assemble.opened(settings) as going:
        assert going.go().error is None
    assert [row["rule"] for row in lines(tmp_path / "a.jsonl")] == ["parked"] * 4
    assert [row["rule"] for row in lines(tmp_path / "b.jsonl")] == ["own"] * 4
