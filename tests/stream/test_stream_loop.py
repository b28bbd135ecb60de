"""The loop: order, overlap, live frames, and every way a part can fail.

Nothing here depends on how fast the machine is: parts that must overlap wait for each other, and time is a FakeClock's.
"""

from __future__ import annotations

import threading
import time

import pytest
from stream_helpers import HEAD, SPEC, WAIT, ColorEngine, clip, frame_image, read_back, segmenter

from edgeseg.errors import StreamError
from edgeseg.result import Frame
from edgeseg.segmenter import Segmenter
from edgeseg.stream import loop, sinks, sources
from edgeseg.stream.channel import Channel, Closed
from edgeseg.stream.pace import Pace
from edgeseg.stream.sinks import Sink
from edgeseg.stream.sources import EndOfStream, Source


class RecordingSink(Sink):
    """Keeps what it gets; can break at a frame, or call `before(result)` first."""

    def __init__(self, break_at: int = -1, before=lambda result: None):
        super().__init__()
        self.results: list = []
        self.closed = False
        self._break_at, self._before = break_at, before

    def write(self, result, image):
        self._before(result)
        if result.frame.index == self._break_at:
            raise StreamError("The sink broke.")
        self.results.append(result)

    @property
    def numbers(self) -> list[int]:
        return [result.frame.index for result in self.results]

    def close(self):
        self.closed = True


class Camera(Source):
    """`frames` images, each after `before(number)`; then broken or ended. Live by default."""

    def __init__(self, frames: int, end: str = "end", live: bool = True, before=lambda number: None, name: str = ""):
        super().__init__()
        self.live = live
        self._frames, self._end, self._before, self._name = frames, end, before, name
        self._number = -1

    def read(self, timeout):
        self._number += 1
        if self._number < self._frames:
            self._before(self._number)
            return Frame(frame_image(self._number), self._number, source=self._name)
        if self._end == "broken":
            raise StreamError("The cable was pulled.")
        raise EndOfStream


def wait_until(condition) -> None:
    """Give other threads real time until `condition()`; StreamError, which ends the run under test, after WAIT s."""
    until = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > until:
            raise StreamError("The test waited in vain.")
        time.sleep(0.001)


class RecordingSegmenter(Segmenter):
    """Keeps the frames that it is given."""

    def __init__(self, engine: ColorEngine):
        super().__init__(SPEC, engine, HEAD)
        self.submitted: list[Frame] = []

    def submit(self, frame):
        self.submitted.append(frame)
        super().submit(frame)


def run_engine(engine: ColorEngine, source: Source, *outputs: Sink):
    """The summary of one stream on an engine."""
    return loop.run(Segmenter(SPEC, engine, HEAD), source, outputs)


def test_all_frames_arrive_in_order_with_the_right_class_maps(tmp_path):
    sink = RecordingSink()
    seg = segmenter(slots=3, seconds=0.003)
    summary = loop.run(seg, sources.open(str(clip(tmp_path / "a.avi", 40))), [sink])
    assert summary.error is None and summary.result == "end of stream" and summary.frames == 40
    assert sink.numbers == list(range(40))
    assert all(r.classmap[32, 4] == r.frame.index % 4 for r in sink.results)
    assert sink.closed and summary.drops == {} and summary.count == 40
    assert list(summary.stages) == ["read", "resize", "infer", "mask", "sink", "age"]
    assert summary.latency.p50 <= summary.latency.p99


def test_slots_work_at_the_same_time(tmp_path):
    """Each inference ends only once four of them run."""
    engine = ColorEngine(slots=4, gate=threading.Barrier(4))
    summary = run_engine(engine, sources.open(str(clip(tmp_path / "a.avi", 40))), RecordingSink())
    assert summary.error is None and summary.frames == 40


def test_a_slow_file_sink_overlaps_with_inference(tmp_path):
    """Each write ends only once the loop has collected the next frame."""
    engine = ColorEngine(slots=1)
    slow = RecordingSink(before=lambda r: wait_until(lambda: engine.collected > min(r.frame.index + 1, 39)))
    summary = run_engine(engine, sources.open(str(clip(tmp_path / "a.avi", 40))), slow)
    assert summary.error is None and slow.numbers == list(range(40))


def test_a_live_result_is_not_held_back_for_the_next_frame():
    """The camera gives no frame until the result of the one before has arrived, with three slots still free."""
    sink = RecordingSink()
    camera = Camera(4, before=lambda number: wait_until(lambda: len(sink.results) == number))
    summary = run_engine(ColorEngine(slots=4), camera, sink)
    assert summary.error is None and sink.numbers == [0, 1, 2, 3]


def held_engine(frames: int) -> tuple[ColorEngine, Camera]:
    """A busy engine: the first frame is in it until the camera has given all of its frames."""
    gate = threading.Event()
    engine = ColorEngine(slots=1, gate=gate)

    def before(number: int) -> None:
        if number == 1:
            wait_until(lambda: engine.started == 1)

    class Burst(Camera):
        def read(self, timeout):
            try:
                return super().read(timeout)
            except EndOfStream:
                gate.set()
                raise

    return engine, Burst(frames, before=before)


def test_live_frames_that_come_too_fast_are_dropped_and_counted_and_the_newest_stays():
    engine, camera = held_engine(60)
    seg = RecordingSegmenter(engine)
    summary = loop.run(seg, camera, [RecordingSink()])
    assert [frame.index for frame in seg.submitted] == [0, 59]
    assert summary.drops == {"source": 58}


def test_a_queue_of_a_live_source_keeps_what_fits():
    engine, camera = held_engine(30)
    seg = RecordingSegmenter(engine)
    summary = loop.Run(seg, [loop.Stream(camera, [])], queue_depth=20).go()
    assert [frame.index for frame in seg.submitted] == [0, *range(10, 30)] and summary.drops == {"source": 9}


def test_a_slow_live_sink_delays_no_other():
    """One sink holds its first result until the other has all fifty; its queue holds two more."""
    fast, writing = RecordingSink(), threading.Event()

    def hold(result) -> None:
        writing.set()
        wait_until(lambda: len(fast.results) == 50)

    slow = RecordingSink(before=hold)
    slow.name, fast.name = "slow", "fast"
    camera = Camera(50, before=lambda n: wait_until(lambda: len(fast.results) == n and (n == 0 or writing.is_set())))
    summary = run_engine(ColorEngine(), camera, slow, fast)
    assert summary.error is None and fast.numbers == list(range(50))
    assert slow.numbers == [0, 48, 49] and summary.drops == {"sink slow": 47}


def test_max_frames(tmp_path):
    sink = RecordingSink()
    summary = loop.run(segmenter(), sources.open(str(clip(tmp_path / "a.avi", 40))), [sink], max_frames=7)
    assert summary.frames == len(sink.results) == 7 and summary.result == "stopped after 7 frames, as asked"


def test_progress_is_reported():
    stop, seen = threading.Event(), []

    def on_progress(progress) -> None:
        seen.append(progress)
        if progress.frames > seen[0].frames:
            stop.set()

    camera = Camera(10**6, before=lambda number: time.sleep(0.002))
    summary = loop.run(segmenter(), camera, [RecordingSink()], on_progress, stop=stop)
    assert seen[-1].frames > seen[0].frames and seen[-1].count is None and summary.result == "stopped"


@pytest.mark.parametrize("live", [False, True])
def test_a_broken_source_ends_the_run_after_what_it_gave(live):
    sink = RecordingSink()
    camera = Camera(5, "broken", live, before=lambda number: wait_until(lambda: len(sink.results) == number))
    summary = loop.run(segmenter(), camera, [sink])
    assert summary.error.what == "The cable was pulled." and summary.result == "failed"
    assert len(sink.results) == 5 and sink.closed


def test_a_broken_sink_ends_a_file_run_with_its_cause_and_closes_the_others(tmp_path):
    bad, good = RecordingSink(break_at=5), RecordingSink()
    summary = loop.run(segmenter(), sources.open(str(clip(tmp_path / "a.avi", 200))), [bad, good])
    assert summary.error.what == "The sink broke."
    assert bad.closed and good.closed and summary.frames < 200


def test_a_broken_engine_ends_the_run_with_its_cause_and_finishes_files(tmp_path):
    out = tmp_path / "out.avi"
    sink = sinks.open(str(out), sinks.Info(SPEC, 25))
    summary = loop.run(segmenter(fail_at=9), sources.open(str(clip(tmp_path / "a.avi", 40))), [sink])
    assert summary.error.what == "RuntimeError: the accelerator went away"
    assert isinstance(summary.error.__cause__, RuntimeError)
    assert len(read_back(out)) == 9


def test_an_engine_that_hangs_is_noticed(clock):
    engine = ColorEngine(hang_at=3)
    run = loop.Run(
        Segmenter(SPEC, engine, HEAD),
        [loop.Stream(Camera(50, live=False), [RecordingSink()])],
        watchdog=5,
        clock=clock,
    )
    summary = run.go(lambda progress: clock.advance(1 if engine.hanging.is_set() else 0))
    engine.close()
    assert summary.error.what == "Inference gave no answer for 5 s." and summary.frames == 3


def test_a_machine_that_was_suspended_during_an_inference_is_not_taken_for_an_engine_that_hangs(clock, caplog):
    gate, hours = threading.Event(), iter([3600.0])

    def suspend(progress) -> None:
        clock.advance(next(hours, 0.1))
        if "stood still" in caplog.text:
            gate.set()

    camera = loop.Stream(Camera(8, live=False), [RecordingSink()])
    summary = loop.Run(segmenter(gate=gate), [camera], watchdog=5, clock=clock).go(suspend)
    assert summary.error is None and summary.frames == 8
    assert "This process stood still for 3599.9 s" in caplog.text


def test_a_run_whose_watchdog_is_held_up_is_not_alive(clock):
    run = loop.Run(segmenter(), [loop.Stream(Camera(0), [])], clock=clock)
    alive = []
    clock.advance(4.9)
    alive.append(run.alive())
    clock.advance(0.2)
    alive.append(run.alive())
    run.go()
    assert [*alive, run.alive()] == [True, False, True]


def test_stop_finishes_the_file(tmp_path):
    stop, out = threading.Event(), tmp_path / "out.avi"
    sink = sinks.open(str(out), sinks.Info(SPEC, 25))
    source = sources.open(f"{clip(tmp_path / 'a.avi', 10)}?loop=1")
    summary = loop.run(segmenter(), source, [sink], lambda p: p.frames > 30 and stop.set(), stop=stop)
    assert summary.result == "stopped" and summary.error is None
    assert len(read_back(out)) == summary.frames > 30


def test_stop_with_a_sink_that_takes_nothing(tmp_path):
    stop, gate = threading.Event(), threading.Event()
    stop.set()
    source = sources.open(f"{clip(tmp_path / 'a.avi', 10)}?loop=1")
    stuck = RecordingSink(before=lambda result: gate.wait(WAIT))
    run = loop.Run(segmenter(), [loop.Stream(source, [stuck])], stop=stop, grace=0.2)
    summary = run.go()
    assert not stuck.closed, "the run has ended before the sink"
    gate.set()
    assert "Sink RecordingSink did not finish within 0.2 s." in summary.warnings


def test_streams_are_served_in_rotation_and_one_that_breaks_stops_no_other():
    """The engine is held until every stream has frames waiting; from there on they must alternate."""
    gate = threading.Event()
    given = {"a": 0, "b": 0, "c": 0}

    def counted(name: str, frames: int):
        def count(number: int) -> None:
            given[name] = number + 1
            if all(given[n] >= least for n, least in {"a": 5, "b": 4, "c": 5}.items()):
                gate.set()

        return Camera(frames, "broken" if name == "b" else "end", live=False, before=count, name=name)

    cameras = [counted("a", 40), counted("b", 4), counted("c", 40)]
    outputs = [RecordingSink() for _ in cameras]
    streams = [loop.Stream(camera, [sink], name) for camera, sink, name in zip(cameras, outputs, "abc")]
    seg = RecordingSegmenter(ColorEngine(slots=1, gate=gate))
    summary = loop.Run(seg, streams).go()
    assert [len(sink.results) for sink in outputs] == [40, 4, 40]
    assert summary.error.what == "The cable was pulled."
    assert sorted(frame.source for frame in seg.submitted[1:7]) == ["a", "a", "b", "b", "c", "c"]
    assert [s.name for s in summary.streams] == ["a", "b", "c"]


def test_a_channel_ends_with_its_cause_after_the_last_item():
    channel: Channel[int] = Channel(2)
    assert channel.get(0) is None
    assert channel.put(1)
    channel.finish(StreamError("over"))
    assert channel.get(0) == 1
    with pytest.raises(StreamError, match="over"):
        channel.get(0)


def test_a_waiting_producer_learns_that_the_consumer_has_gone():
    channel: Channel[int] = Channel(1)
    channel.put(1)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(channel.put(2)))
    thread.start()
    channel.abandon()
    thread.join(WAIT)
    assert answers == [False]
    channel.finish()
    with pytest.raises(Closed):
        channel.get(0)


def test_pacing_keeps_the_rate_and_makes_up_for_no_missed_tick(clock):
    pace = Pace(10, clock)
    start = clock.monotonic()
    assert [pace.wait(1) for _ in range(5)] == [True] * 5
    assert clock.monotonic() - start == pytest.approx(0.4)
    assert not pace.wait(0.03) and clock.monotonic() - start == pytest.approx(0.43)
    clock.advance(5)
    assert pace.wait(0) and pace.wait(0) and not pace.wait(0), "one late tick, one on time, and none of the missed"
