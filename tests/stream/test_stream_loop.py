"""The loop: order, overlap, live frames, and every way a part can fail."""

from __future__ import annotations

import threading
import time

import pytest
from stream_helpers import clip, picture, read_back, segmenter

from edgeseg.errors import StreamError
from edgeseg.segmenter import Frame
from edgeseg.stream import loop, sinks, sources
from edgeseg.stream.channel import Channel, Closed
from edgeseg.stream.sinks import Sink
from edgeseg.stream.sources import EndOfStream, Source


class Keep(Sink):
    """Remembers what it got; can be slow, break at a frame, or block until released."""

    def __init__(self, seconds: float = 0.0, break_at: int = -1, gate: threading.Event | None = None):
        super().__init__()
        self.got: list = []
        self.closed = False
        self._seconds, self._break_at, self._gate = seconds, break_at, gate

    def write(self, result, picture):
        if self._gate:
            self._gate.wait(20)
        time.sleep(self._seconds)
        if result.frame.index == self._break_at:
            raise StreamError("The sink broke.")
        self.got.append(result)

    def close(self):
        self.closed = True


class Camera(Source):
    """A live source: `frames` pictures `gap` seconds apart, then broken, ended, or silent."""

    live = True

    def __init__(self, frames: int, gap: float, end: str = "end"):
        super().__init__()
        self._left, self._gap, self._end = frames, gap, end
        self._i = -1

    def read(self, timeout):
        self._i += 1
        if self._i < self._left:
            time.sleep(self._gap)
            return Frame(picture(self._i), self._i)
        if self._end == "broken":
            raise StreamError("The cable was pulled.")
        if self._end == "end":
            raise EndOfStream
        time.sleep(timeout)
        return None


def test_all_frames_arrive_in_order_with_the_right_class_maps(tmp_path):
    keep = Keep()
    seg = segmenter(slots=3, seconds=0.003)
    summary = loop.run(seg, sources.open(str(clip(tmp_path / "a.avi", 40))), [keep])
    assert summary.error is None and summary.result == "end of stream" and summary.frames == 40
    assert [r.frame.index for r in keep.got] == list(range(40))
    assert all(r.classmap[32, 4] == r.frame.index % 4 for r in keep.got)
    assert keep.closed and summary.drops == {} and summary.count == 40
    assert set(summary.stages) == {"read", "resize", "infer", "mask", "sink", "age"}
    assert summary.latency_ms["p50"] <= summary.latency_ms["p99"]


def test_slots_work_at_the_same_time(tmp_path):
    """4 slots of 20 ms finish 40 frames in about 0.2 s; one after another would take 0.8 s."""
    summary = loop.run(segmenter(slots=4, seconds=0.02), sources.open(str(clip(tmp_path / "a.avi", 40))), [Keep()])
    assert summary.seconds < 0.55


def test_a_slow_file_sink_overlaps_with_inference(tmp_path):
    slow = Keep(seconds=0.01)
    summary = loop.run(segmenter(slots=1, seconds=0.01), sources.open(str(clip(tmp_path / "a.avi", 40))), [slow])
    assert len(slow.got) == 40 and summary.seconds < 0.75


def test_a_live_result_is_not_held_back_for_the_next_frame():
    """Frames 0.3 s apart on 4 free slots: each result arrives long before the next frame comes."""
    keep = Keep()
    summary = loop.run(segmenter(slots=4, seconds=0.01), Camera(4, 0.3), [keep])
    assert len(keep.got) == 4
    assert summary.stages["age"]["p99"] < 150


def test_live_frames_that_come_too_fast_are_dropped_and_counted():
    keep = Keep()
    summary = loop.run(segmenter(slots=1, seconds=0.03), Camera(60, 0.003), [keep])
    assert summary.drops["source"] + len(keep.got) == 60
    assert summary.drops["source"] > 20
    assert summary.stages["age"]["p90"] < 100


def test_a_queue_of_a_live_source_keeps_what_fits():
    keep = Keep()
    camera = Camera(30, 0.003)
    summary = loop.Run(segmenter(slots=1, seconds=0.03), [loop.Stream(camera, [keep])], queue_depth=20).go()
    assert len(keep.got) >= 20 and summary.drops["source"] + len(keep.got) == 30


def test_a_slow_live_sink_delays_no_other():
    slow, fast = Keep(seconds=0.1), Keep()
    summary = loop.run(segmenter(slots=2), Camera(50, 0.005), [slow, fast])
    assert len(fast.got) > 40 and len(slow.got) < 15
    assert summary.drops["sink Keep"] > 20


def test_max_frames(tmp_path):
    keep = Keep()
    summary = loop.run(segmenter(), sources.open(str(clip(tmp_path / "a.avi", 40))), [keep], max_frames=7)
    assert summary.frames == len(keep.got) == 7 and summary.result == "stopped after 7 frames, as asked"


def test_progress_is_reported():
    seen = []
    loop.run(segmenter(), Camera(30, 0.02), [Keep()], seen.append)
    assert seen and seen[-1].frames > seen[0].frames and seen[0].result == "running"


@pytest.mark.parametrize("live", [False, True])
def test_a_broken_source_ends_the_run_after_what_it_gave(live):
    camera, keep = Camera(5, 0.01, "broken"), Keep()
    camera.live = live
    summary = loop.run(segmenter(), camera, [keep])
    assert summary.error.what == "The cable was pulled." and summary.result == "failed"
    assert len(keep.got) == 5 and keep.closed


def test_a_broken_sink_ends_a_file_run_with_its_cause_and_closes_the_others(tmp_path):
    bad, good = Keep(break_at=5), Keep()
    summary = loop.run(segmenter(), sources.open(str(clip(tmp_path / "a.avi", 200))), [bad, good])
    assert summary.error.what == "The sink broke."
    assert bad.closed and good.closed and summary.frames < 200


def test_a_broken_engine_ends_the_run_with_its_cause_and_finishes_files(tmp_path):
    out = tmp_path / "out.avi"
    sink = sinks.open(str(out), sinks.Info(segmenter().spec, 25))
    summary = loop.run(segmenter(fail_at=9), sources.open(str(clip(tmp_path / "a.avi", 40))), [sink])
    assert summary.error.what == "RuntimeError: the accelerator went away"
    assert isinstance(summary.error.__cause__, RuntimeError)
    assert len(read_back(out)) == 9


def test_an_engine_that_hangs_is_noticed():
    run = loop.Run(segmenter(hang_at=3), [loop.Stream(Camera(50, 0.01), [Keep()])], watchdog=0.5)
    begin = time.monotonic()
    summary = run.go()
    assert "Inference gave no answer for 0.5 s" in summary.error.what
    assert time.monotonic() - begin < 5


def test_stop_finishes_the_file(tmp_path):
    stop, out = threading.Event(), tmp_path / "out.avi"
    sink = sinks.open(str(out), sinks.Info(segmenter().spec, 25))
    source = sources.open(f"{clip(tmp_path / 'a.avi', 10)}?loop=1")
    summary = loop.run(segmenter(), source, [sink], lambda s: s.frames > 30 and stop.set(), stop=stop)
    assert summary.result == "stopped" and summary.error is None
    assert len(read_back(out)) == summary.frames > 30


def test_stop_with_a_sink_that_takes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "GRACE", 0.3)
    stop, gate = threading.Event(), threading.Event()
    stop.set()
    source = sources.open(f"{clip(tmp_path / 'a.avi', 10)}?loop=1")
    begin = time.monotonic()
    summary = loop.run(segmenter(), source, [Keep(gate=gate)], stop=stop)
    gate.set()
    assert time.monotonic() - begin < 3
    assert any("Sink Keep did not finish" in w for w in summary.warnings)


def test_streams_take_turns_and_one_that_breaks_stops_no_other():
    keeps = [Keep(), Keep(), Keep()]
    cameras = [Camera(40, 0.01), Camera(3, 0.01, "broken"), Camera(40, 0.01)]
    streams = [loop.Stream(c, [k], f"cam{i}") for i, (c, k) in enumerate(zip(cameras, keeps))]
    summary = loop.Run(segmenter(slots=1, seconds=0.01), streams).go()
    first, broken, last = (len(k.got) for k in keeps)
    assert broken <= 3 and abs(first - last) <= 6 and first > 10
    assert summary.error.what == "The cable was pulled."


def test_a_channel_ends_with_its_cause_after_the_last_item():
    channel: Channel[int] = Channel(2)
    assert channel.get(0.01) is None
    assert channel.put(1)
    channel.finish(StreamError("over"))
    assert channel.get(0) == 1
    with pytest.raises(StreamError, match="over"):
        channel.get(0)


def test_a_waiting_putter_learns_that_the_taker_has_gone():
    channel: Channel[int] = Channel(1)
    channel.put(1)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(channel.put(2)))
    thread.start()
    channel.abandon()
    thread.join(5)
    assert answers == [False]
    channel.finish()
    with pytest.raises(Closed):
        channel.get(0)
