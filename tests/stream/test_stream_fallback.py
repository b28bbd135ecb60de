"""The fallback policy: quality given up for age, visibly, and restored."""

from __future__ import annotations

import pytest
from stream_helpers import HEAD, SPEC, ColorEngine, FakeClock, frame_image, segmenter

from edgeseg.errors import OptionError
from edgeseg.result import Frame
from edgeseg.segmenter import Segmenter
from edgeseg.spec import Spec
from edgeseg.stream import config
from edgeseg.stream.fallback import LONGEST_PATIENCE, PATIENCE, WINDOW, FallbackPolicy, Level
from edgeseg.stream.loop import Run
from edgeseg.stream.pipeline import Stream
from edgeseg.stream.sinks.null import Null
from edgeseg.stream.sources import Source


def fallback_policy(clock: FakeClock, deadline=0.1, slow=0.0, quick=0.0):
    """(policy, names of the levels it steps to): inference takes `slow` seconds in full and `quick` when reduced."""
    steps = []
    full, small = (
        Segmenter(SPEC, ColorEngine(slots=1, seconds=seconds, clock=clock), HEAD) for seconds in (slow, quick)
    )
    levels = [Level("full", full), Level("skip", full, every=2), Level("small", small)]
    return FallbackPolicy(levels, deadline, lambda name, reason: steps.append(name), clock), steps


def test_steps_down_when_most_results_are_late_and_up_again_after_patience(clock):
    policy, steps = fallback_policy(clock)
    for _ in range(WINDOW - 1):
        policy.add_age(0.2)
    assert policy.level == 0, "one result more is needed for a full window"
    policy.add_age(0.2)
    assert (policy.name, policy.late) == ("skip", WINDOW)
    for _ in range(PATIENCE):
        policy.add_age(0.01)
    assert steps == ["skip", "full"]


def test_a_step_up_that_does_not_hold_doubles_the_patience_up_to_a_limit(clock):
    policy, _ = fallback_policy(clock)
    for expected in [PATIENCE, 2 * PATIENCE, 4 * PATIENCE, 8 * PATIENCE, LONGEST_PATIENCE, LONGEST_PATIENCE]:
        for _ in range(WINDOW):
            policy.add_age(0.2)
        assert policy.level == 1
        for _ in range(expected - 1):
            policy.add_age(0.01)
        assert policy.level == 1
        policy.add_age(0.01)
        assert policy.level == 0


def test_results_between_headroom_and_deadline_change_nothing(clock):
    policy, steps = fallback_policy(clock)
    for _ in range(10 * PATIENCE):
        policy.add_age(0.08)
    assert steps == [] and policy.late == 0


def test_never_below_the_last_level(clock):
    policy, steps = fallback_policy(clock)
    for _ in range(20 * WINDOW):
        policy.add_age(9.0)
    assert steps == ["skip", "small"]


class Endless(Source):
    """Frames captured now, as many as are asked for; none is replaced, so that the run does not depend on threads."""

    def __init__(self, clock: FakeClock):
        super().__init__()
        self._clock, self._number = clock, 0

    def read(self, timeout):
        self._number += 1
        return Frame(frame_image(self._number), self._number, self._clock.monotonic())


def test_a_slow_model_falls_back_in_a_run_and_says_so(clock):
    """Inference takes 0.1 s of the clock in full and 2 ms when reduced; the deadline is 60 ms."""
    policy, steps = fallback_policy(clock, deadline=0.06, slow=0.1, quick=0.002)
    summary = Run(policy, [Stream(Endless(clock), [Null()])], max_frames=80, clock=clock).go()
    policy.close()
    assert summary.error is None
    assert steps == ["skip", "small"]
    fallback = summary.to_dict()["fallback"]
    assert fallback["results"]["small"] >= 50
    assert fallback["late"] >= 2 * WINDOW and (fallback["level"], fallback["name"]) == (2, "small")
    assert summary.drops["fallback"] > 0, "frames skipped on purpose are counted"
    assert summary.stages["age"].p50 < 60, "most results are young again"


def test_a_fallback_with_other_classes_is_refused():
    other = Segmenter(Spec(64, 96, ("a", "b")), ColorEngine(), segmenter().head)
    with pytest.raises(OptionError, match=r"Fallback bundle small has other classes\.\nExpected: road"):
        FallbackPolicy([Level("full", segmenter()), Level("small", other)], 0.1)


def test_fallback_without_deadline_and_a_bad_deadline_are_refused(tmp_path):
    streams = config.from_options(["a.mp4"], [])
    with pytest.raises(OptionError, match="without a deadline"):
        config.Settings(tmp_path, streams, fallback=(tmp_path,))
    with pytest.raises(OptionError, match="deadline_ms is 0"):
        config.Settings(tmp_path, streams, deadline_ms=0)
