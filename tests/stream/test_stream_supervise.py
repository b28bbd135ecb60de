"""SupervisedSource and ReconnectingSink: every transition of the state machine, on a clock that the tests move."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
from stream_helpers import SPEC, WAIT, FakeClock, frame_image

from edgeseg.errors import EdgesegError, OptionError, StreamError
from edgeseg.result import Frame, Result
from edgeseg.stream.reconnect import LONGEST_DELAY, ReconnectingSink
from edgeseg.stream.sinks import Sink
from edgeseg.stream.sources import EndOfStream, Refused, Source
from edgeseg.stream.supervise import MAX_STUCK, ReconnectPolicy, SupervisedSource

POLICY = ReconnectPolicy(connect=15, stall=5, frozen=0, first_delay=0.5, longest_delay=4, steady=1)
SILENCE = threading.Event()  # never set


class Script(Source):
    """One connection: `frames` images, each on request; then `end`: an error to raise, or silence if there is none.

    `same`: one image over and over. `stuck`: read() does not return until that event is set.
    """

    live = True

    def __init__(self, frames: int, end: object = None, same: bool = False, stuck: threading.Event | None = None):
        super().__init__()
        self.requests: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._frames, self._end, self._same, self._stuck = frames, end, same, stuck
        self._number = 0

    def read(self, timeout):
        if self._stuck:
            self._stuck.wait(WAIT)
        if self._number == self._frames:
            if isinstance(self._end, BaseException):
                raise self._end
            SILENCE.wait(timeout)
            return None
        try:
            self.requests.get(timeout=timeout)
        except queue.Empty:
            return None
        self._number += 1
        return Frame(frame_image(0 if self._same else self._number), self._number)


class ScriptedCamera:
    """A supervised source that connects to one script after another; an exception among them is a failed connection."""

    def __init__(self, clock: FakeClock, *connections: object, policy: ReconnectPolicy = POLICY):
        self._left = deque(connections)
        self._requests: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.states: list[str] = []
        self.reasons: list[str] = []
        self.source = SupervisedSource(self._connect, "cam", policy, self._record, seed=0, clock=clock)

    def _connect(self) -> Source:
        script = self._left.popleft() if len(self._left) > 1 else self._left[0]
        if isinstance(script, BaseException):
            raise script
        opened = script() if callable(script) else script
        opened.requests.put(None)  # a connection begins with a frame
        self._requests = opened.requests
        return opened

    def _record(self, change) -> None:
        self.states.append(change.state)
        self.reasons.append(change.reason)

    def frames(self, count: int) -> list[Frame]:
        """Ask for frames one by one, over as many connections as that takes; back-off passes at once."""
        got: list[Frame] = []
        for _ in range(20 * count):
            if self.source.state == "STREAMING" and self._requests.empty():
                self._requests.put(None)
            if (frame := self.source.read(1.0)) is not None:
                got.append(frame)
                if len(got) == count:
                    return got
        raise AssertionError(f"{len(got)} of {count} frames; {self.states}")


def always() -> Script:
    return Script(10**6)


@pytest.fixture
def scripted(clock):
    """scripted(*connections): closed when the test ends."""
    made: list[ScriptedCamera] = []

    def make(*connections: object, policy: ReconnectPolicy = POLICY) -> ScriptedCamera:
        made.append(ScriptedCamera(clock, *connections, policy=policy))
        return made[-1]

    yield make
    for each in made:
        each.source.close()


def test_connecting_to_streaming_to_stopped(scripted):
    camera = scripted(always)
    assert [f.index for f in camera.frames(3)] == [0, 1, 2]
    camera.source.close()
    assert camera.states == ["CONNECTING", "STREAMING", "STOPPED"]
    assert camera.source.warnings == [] and camera.source.reconnects == 0
    with pytest.raises(EndOfStream):
        camera.source.read(0)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (StreamError("The cable was pulled."), "The cable was pulled."),
        (EndOfStream(), "the stream ended"),
        (ValueError("a bug in a driver"), "ValueError: a bug in a driver"),
    ],
)
def test_streaming_breaks_backs_off_and_reconnects(scripted, end, reason):
    camera = scripted(Script(1, end), always)
    assert [f.index for f in camera.frames(4)] == [0, 1, 2, 3], "numbered through over both connections"
    camera.source.close()
    assert camera.states[:6] == ["CONNECTING", "STREAMING", "BROKEN", "BACKING_OFF", "CONNECTING", "STREAMING"]
    assert camera.reasons[2] == reason
    assert camera.source.reconnects == 1 and f"reconnected 1 times (1x {reason})" in camera.source.warnings[0]


def test_silence_is_a_stall_after_the_limit_and_not_before(scripted, clock):
    camera = scripted(Script(1), always)
    camera.frames(1)
    clock.advance(4.9)
    assert camera.source.read(0) is None and camera.states == ["CONNECTING", "STREAMING"]
    clock.advance(0.2)
    assert camera.source.read(0) is None
    assert camera.states[2:] == ["STALLED", "BACKING_OFF"] and camera.reasons[2] == "no frame for 5 s"
    assert camera.frames(1)[0].index == 1


def test_a_camera_that_is_absent_at_first(scripted):
    camera = scripted(StreamError("no route"), StreamError("no route"), always)
    camera.frames(1)
    assert camera.states == ["CONNECTING", "BROKEN", "BACKING_OFF"] * 2 + ["CONNECTING", "STREAMING"]
    assert camera.source.reconnects == 0


def test_a_connection_that_never_gives_a_frame_is_stalled(scripted, clock):
    camera = scripted(Script(0), always)
    camera.source.read(0)
    clock.advance(14.9)
    camera.source.read(0)
    assert camera.states == ["CONNECTING"]
    clock.advance(0.2)
    camera.source.read(0)
    assert camera.states == ["CONNECTING", "STALLED", "BACKING_OFF"] and camera.reasons[1] == "no frame for 15 s"


def test_a_frozen_image_is_stalled_and_a_changing_one_is_not(scripted, clock):
    policy = ReconnectPolicy(stall=100, frozen=60, first_delay=0.5)
    camera = scripted(Script(10**6, same=True), always, policy=policy)
    camera.frames(1)
    clock.advance(59)
    camera.frames(1)
    assert camera.states == ["CONNECTING", "STREAMING"]
    clock.advance(2)
    camera.frames(1)
    assert camera.states[2:] == ["STALLED", "BACKING_OFF", "CONNECTING", "STREAMING"]
    assert camera.reasons[2] == "the same image for 60 s"
    for _ in range(3):
        clock.advance(61)
        camera.frames(1)
    assert camera.states[-1] == "STREAMING" and camera.source.reconnects == 1


def test_the_delay_is_an_eighth_of_the_absence_with_half_of_it_at_random():
    policy = ReconnectPolicy(first_delay=1, longest_delay=10)
    assert [policy.delay(absent, 1.0) for absent in (0, 8, 16, 40, 80, 800)] == [1, 1, 2, 5, 10, 10]
    assert [policy.delay(absent, 0.0) for absent in (0, 8, 16)] == [0.5, 0.5, 1]
    assert policy.delay(float("inf"), 1.0) == 10


def test_backing_off_lasts_as_long_as_the_delay(scripted, clock):
    camera = scripted(StreamError("x"), always)
    while camera.source.state != "BACKING_OFF":
        camera.source.read(WAIT)
    delay = float(camera.reasons[-1].removesuffix(" s"))
    start = clock.monotonic()
    while camera.source.state == "BACKING_OFF":
        camera.source.read(0.01)
    assert 0.25 <= delay <= 0.5 and clock.monotonic() - start == pytest.approx(delay, abs=0.05)


def delays(camera: ScriptedCamera) -> list[float]:
    return [float(r.removesuffix(" s")) for s, r in zip(camera.states, camera.reasons) if s == "BACKING_OFF"]


def test_a_camera_that_drops_again_and_again_is_connected_again_at_once(scripted, clock):
    """Each connection streams for two seconds, at last one frame a second; then it drops."""
    camera = scripted(*[Script(3, StreamError("dropped")) for _ in range(20)], always)
    for _ in range(60):
        camera.frames(1)
        clock.advance(1)
    assert len(delays(camera)) >= 19 and max(delays(camera)) <= POLICY.first_delay


def test_a_single_frame_does_not_end_an_absence(scripted, clock):
    camera = scripted(*[Script(1, StreamError("dropped")) for _ in range(40)], always)
    for _ in range(40):
        camera.frames(1)
        clock.advance(0.9)
    assert delays(camera)[0] <= 0.5 and min(delays(camera)[-5:]) >= POLICY.longest_delay / 2


def test_credentials_that_are_refused_are_not_tried_again_soon(scripted, clock):
    camera = scripted(Script(1, StreamError("reboot")), Refused("booting: 401"), always)
    camera.frames(3)
    assert delays(camera)[1] >= POLICY.longest_delay / 2


def test_counters_move_while_a_connection_lasts(scripted):
    camera = scripted(always)
    camera.frames(1)
    connected = camera.source._connection.source
    connected.damaged, connected.dropped = 3, 2
    assert camera.source.damaged == 3 and camera.source.dropped == 2
    camera.source.close()
    assert camera.source.damaged == 3 and camera.source.dropped == 2


@pytest.mark.parametrize("error", [OptionError("wrong word"), Refused("refuses these credentials")])
def test_what_reconnecting_cannot_fix_is_raised(scripted, error):
    with pytest.raises(EdgesegError, match=error.what):
        scripted(error).frames(1)


def test_refused_credentials_that_were_accepted_before_are_tried_again(scripted):
    camera = scripted(Script(1, StreamError("reboot")), Refused("booting: 401"), always)
    camera.frames(3)
    assert "booting: 401" in camera.reasons


def test_a_driver_that_never_returns_is_left_behind_and_in_the_end_fatal(scripted, clock):
    release = threading.Event()
    camera = scripted(lambda: Script(0, stuck=release))
    with pytest.raises(StreamError, match=f"{MAX_STUCK} connections are stuck in the driver"):
        for _ in range(100):
            camera.source.read(0)
            clock.advance(20)
    camera.source.close()
    release.set()
    assert any("never came back from the driver" in w for w in camera.source.warnings)


def test_closing_does_not_wait_for_a_stuck_driver(scripted):
    release = threading.Event()
    camera = scripted(lambda: Script(0, stuck=release))
    camera.source.read(0)
    begin = time.monotonic()
    camera.source.close()
    release.set()
    assert time.monotonic() - begin < WAIT / 2, "the driver would have taken twice as long"


class Disk(Sink):
    def __init__(self, fail_after: int = 10**6):
        super().__init__()
        self.wrote, self.closed, self._fail_after = 0, False, fail_after

    def write(self, result, image):
        if self.wrote == self._fail_after:
            raise StreamError("The disk is full.")
        self.wrote += 1

    def close(self):
        self.closed = True


RESULT = Result(Frame(frame_image(0)), np.zeros((SPEC.height, SPEC.width), np.uint8), {}, spec=SPEC)


def test_a_sink_is_opened_again_after_it_failed(clock):
    parts, first, second = [], Disk(fail_after=2), Disk()

    def reopen(part: int) -> Sink:
        parts.append(part)
        if len(parts) == 1:
            raise StreamError("Still full.")
        return second

    with ReconnectingSink(first, reopen, first_delay=1, clock=clock) as sink:
        for expected in [[], [], []]:  # two are written, the third breaks it
            sink.write(RESULT, None)
            assert parts == expected
        clock.advance(0.9)
        sink.write(RESULT, None)
        assert parts == [], "too early"
        clock.advance(0.2)
        sink.write(RESULT, None)
        assert parts == [1], "opened again, in vain"
        clock.advance(1.9)
        sink.write(RESULT, None)
        assert parts == [1], "the delay has doubled"
        clock.advance(0.2)
        sink.write(RESULT, None)
    assert first.wrote == 2 and first.closed and second.wrote == 1 and second.closed
    assert parts == [1, 2] and sink.lost == 4
    assert "failed 2 times and lost 4 results" in sink.warnings[0] and "1x The disk is full." in sink.warnings[0]


def test_the_delay_of_a_sink_doubles_to_its_limit_and_starts_over_after_success(clock):
    broken: Callable[[int], Sink] = lambda part: Disk(fail_after=0)  # noqa: E731
    sink = ReconnectingSink(Disk(fail_after=0), broken, first_delay=16, clock=clock)
    for delay in (16, 32, LONGEST_DELAY, LONGEST_DELAY):
        sink.write(RESULT, None)
        failures = sink.failures
        clock.advance(delay - 1)
        sink.write(RESULT, None)
        assert sink.failures == failures, "too early"
        clock.advance(2)
