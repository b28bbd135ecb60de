"""Supervised and Healing: every transition of the state machine, with short times and a scripted camera."""

from __future__ import annotations

import time
from collections import deque

import numpy as np
import pytest
from stream_helpers import SPEC, picture

from edgeseg.errors import EdgesegError, OptionError, StreamError
from edgeseg.segmenter import Frame, Result
from edgeseg.stream.reconnect import Healing
from edgeseg.stream.sinks import Sink
from edgeseg.stream.sources import EndOfStream, Refused, Source
from edgeseg.stream.supervise import MAX_STUCK, Policy, Supervised

QUICK = Policy(connect=0.3, stall=0.15, frozen=0.0, first_delay=0.02, longest_delay=0.1, steady=10)


class Script(Source):
    """One connection: `n` frames 5 ms apart (`same`: one picture), then `end`: an error to raise, or silence."""

    live = True

    def __init__(self, n: int, end: object = None, same: bool = False, block: float = 0.0):
        super().__init__()
        self._n, self._end, self._same, self._block = n, end, same, block
        self._i = 0

    def read(self, timeout):
        time.sleep(self._block or 0.005)
        self._i += 1
        if self._i <= self._n:
            return Frame(picture(0 if self._same else self._i), self._i)
        if isinstance(self._end, BaseException):
            raise self._end
        return None


def supervised(*connections, policy: Policy = QUICK):
    """Connects to the scripts one after another; an exception among them is a failed connection."""
    left, changes = deque(connections), []

    def connect():
        script = left.popleft() if len(left) > 1 else left[0]
        if isinstance(script, BaseException):
            raise script
        return script() if callable(script) else script

    return Supervised(connect, "cam", policy, changes.append, seed=0), changes


def frames(source, count: int, seconds: float = 5.0) -> list:
    got, until = [], time.monotonic() + seconds
    while len(got) < count and time.monotonic() < until:
        if (frame := source.read(0.02)) is not None:
            got.append(frame)
    assert len(got) == count, f"{len(got)} of {count} frames; {source.state}"
    return got


def states(changes) -> list[str]:
    return [c.state for c in changes]


ALWAYS = lambda: Script(10**6)  # noqa: E731


def test_connecting_to_streaming_to_stopped():
    source, changes = supervised(ALWAYS)
    assert [f.index for f in frames(source, 3)] == [0, 1, 2]
    source.close()
    assert states(changes) == ["CONNECTING", "STREAMING", "STOPPED"]
    assert source.warnings == [] and source.reconnects == 0
    with pytest.raises(EndOfStream):
        source.read(0)


@pytest.mark.parametrize(
    ("end", "state", "why"),
    [
        (StreamError("The cable was pulled."), "BROKEN", "The cable was pulled."),
        (EndOfStream(), "BROKEN", "the stream ended"),
        (ValueError("a bug in a driver"), "BROKEN", "ValueError: a bug in a driver"),
        (None, "STALLED", "no frame for 0.15 s"),
    ],
)
def test_streaming_fails_backs_off_and_reconnects(end, state, why):
    source, changes = supervised(Script(1, end), ALWAYS)
    got = frames(source, 4)
    source.close()
    assert [f.index for f in got] == [0, 1, 2, 3]  # numbered through over both connections
    assert states(changes)[:6] == ["CONNECTING", "STREAMING", state, "BACKING_OFF", "CONNECTING", "STREAMING"]
    assert changes[2].why == why
    assert source.reconnects == 1 and f"reconnected 1 times (1x {why})" in source.warnings[0]


def test_a_camera_that_is_absent_at_first():
    source, changes = supervised(StreamError("no route"), StreamError("no route"), ALWAYS)
    frames(source, 1)
    assert states(changes) == ["CONNECTING", "BROKEN", "BACKING_OFF"] * 2 + ["CONNECTING", "STREAMING"]
    assert source.reconnects == 0
    source.close()


def test_a_connection_that_never_gives_a_frame_is_stalled():
    source, changes = supervised(Script(0), ALWAYS)
    frames(source, 1)
    assert states(changes) == ["CONNECTING", "STALLED", "BACKING_OFF", "CONNECTING", "STREAMING"]
    assert changes[1].why == "no frame for 0.3 s"
    source.close()


def test_a_frozen_picture_is_stalled_and_a_moving_one_is_not():
    policy = Policy(stall=1, frozen=0.2, first_delay=0.02, longest_delay=0.1)
    source, changes = supervised(Script(10**6, same=True), ALWAYS, policy=policy)
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        source.read(0.02)
    source.close()
    assert states(changes) == [
        "CONNECTING",
        "STREAMING",
        "STALLED",
        "BACKING_OFF",
        "CONNECTING",
        "STREAMING",
        "STOPPED",
    ]
    assert changes[2].why == "the same picture for 0.2 s"


def test_the_delay_doubles_to_its_cap_with_half_of_it_at_random():
    policy = Policy(first_delay=1, longest_delay=10)
    assert [policy.delay(n, 1.0) for n in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert [policy.delay(n, 0.0) for n in range(1, 4)] == [0.5, 1, 2]
    assert policy.delay(10**6, 1.0) == 10


def test_the_delay_starts_over_after_steady_streaming():
    policy = Policy(connect=0.3, stall=0.15, first_delay=0.02, longest_delay=5, steady=0.1)
    source, _ = supervised(*[StreamError("x")] * 3, Script(60, StreamError("y")), ALWAYS, policy=policy)
    begin = time.monotonic()
    frames(source, 30)
    while source.reconnects == 0:
        source.read(0.02)
    source.close()
    assert time.monotonic() - begin < 2 and source._failures <= 1


@pytest.mark.parametrize("error", [OptionError("wrong word"), Refused("refuses these credentials")])
def test_what_no_reconnection_mends_is_raised(error):
    source, _ = supervised(error)
    with pytest.raises(EdgesegError, match=error.what):
        frames(source, 1)
    source.close()


def test_credentials_refused_after_they_were_good_are_tried_again():
    source, changes = supervised(Script(1, StreamError("reboot")), Refused("booting: 401"), ALWAYS)
    frames(source, 3)
    source.close()
    assert "booting: 401" in [c.why for c in changes]


def test_a_driver_that_never_returns_is_left_behind_and_in_the_end_fatal():
    policy = Policy(connect=0.02, stall=0.02, first_delay=0.001, longest_delay=0.002)
    source, _ = supervised(lambda: Script(0, block=3.0), policy=policy)
    with pytest.raises(StreamError, match=f"{MAX_STUCK} connections are stuck in the driver"):
        frames(source, 1)
    source.close()
    assert any("never came back from the driver" in w for w in source.warnings)


def test_closing_does_not_wait_for_a_stuck_driver():
    source, _ = supervised(lambda: Script(0, block=3.0))
    source.read(0.01)
    begin = time.monotonic()
    source.close()
    assert time.monotonic() - begin < 0.5


class Disk(Sink):
    def __init__(self, fail_after: int):
        super().__init__()
        self.wrote, self.closed, self._fail_after = 0, False, fail_after

    def write(self, result, picture):
        if self.wrote == self._fail_after:
            raise StreamError("The disk is full.")
        self.wrote += 1

    def close(self):
        self.closed = True


def test_a_sink_is_opened_again_after_it_failed():
    parts, disks = [], [Disk(2), Disk(10**6)]

    def reopen(part):
        parts.append(part)
        if len(parts) == 1:
            raise StreamError("Still full.")
        return disks[1]

    result = Result(Frame(picture(0)), np.zeros((SPEC.height, SPEC.width), np.uint8), {})
    with Healing(disks[0], reopen, first_delay=0.03) as sink:
        until = time.monotonic() + 5
        while disks[1].wrote == 0 and time.monotonic() < until:
            sink.write(result, None)
            time.sleep(0.005)
    assert disks[0].wrote == 2 and disks[0].closed and disks[1].wrote == 1 and disks[1].closed
    assert parts == [1, 2] and sink.lost > 2
    assert "failed 2 times and lost" in sink.warnings[0] and "1x The disk is full." in sink.warnings[0]
