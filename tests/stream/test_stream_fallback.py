"""The ladder: quality given up for age, visibly, and taken back."""

from __future__ import annotations

import threading

import pytest
from stream_helpers import clip, segmenter

from edgeseg.errors import OptionError
from edgeseg.segmenter import Segmenter
from edgeseg.spec import Spec
from edgeseg.stream import config, sources
from edgeseg.stream.fallback import LONGEST, PATIENCE, WINDOW, Ladder
from edgeseg.stream.loop import Run
from edgeseg.stream.pipeline import Stream
from edgeseg.stream.sinks.null import Null


def ladder(deadline=0.1, slow=0.0, quick=0.0):
    steps = []
    full = segmenter(seconds=slow, slots=1)
    rungs = [("full", full, 1), ("skip", full, 2), ("small", segmenter(seconds=quick, slots=1), 1)]
    return Ladder(rungs, deadline, lambda name, why: steps.append(name)), steps


def test_steps_down_when_most_results_are_late_and_up_again_after_patience():
    found, steps = ladder()
    for _ in range(WINDOW - 1):
        found.judge(0.2)
    assert found.level == 0, "one result more is needed for a full window"
    found.judge(0.2)
    assert (found.name, found.late) == ("skip", WINDOW)
    for _ in range(PATIENCE):
        found.judge(0.01)
    assert steps == ["skip", "full"]


def test_a_step_up_that_does_not_hold_doubles_the_patience_up_to_a_limit():
    found, _ = ladder()
    for expected in [PATIENCE, 2 * PATIENCE, 4 * PATIENCE, 8 * PATIENCE, LONGEST, LONGEST]:
        for _ in range(WINDOW):
            found.judge(0.2)
        assert found.level == 1
        for _ in range(expected - 1):
            found.judge(0.01)
        assert found.level == 1
        found.judge(0.01)
        assert found.level == 0


def test_results_between_headroom_and_deadline_change_nothing():
    found, steps = ladder()
    for _ in range(10 * PATIENCE):
        found.judge(0.08)
    assert steps == [] and found.late == 0


def test_never_below_the_last_rung():
    found, steps = ladder()
    for _ in range(20 * WINDOW):
        found.judge(9.0)
    assert steps == ["skip", "small"]


def test_a_slow_model_falls_back_in_a_live_run_and_says_so(tmp_path):
    found, steps = ladder(deadline=0.06, slow=0.1, quick=0.002)
    source = sources.open(f"{clip(tmp_path / 'camera.avi', frames=150)}?live=1&loop=1")
    run = Run(found, [Stream(source, [Null()])], max_frames=120, stop=threading.Event())
    try:
        summary = run.go()
    finally:
        found.close()
    assert summary.error is None
    assert steps[:2] == ["skip", "small"]
    state = summary.to_dict()["ladder"]
    assert state["results"]["small"] > 60 and state["late"] >= WINDOW
    assert summary.drops["ladder"] > 0, "frames skipped on purpose are counted"
    assert summary.stages["age"]["p50"] < 60, "most results are young again"


def test_a_fallback_with_other_classes_is_refused():
    full = segmenter()
    other = Segmenter(Spec(64, 96, ("a", "b")), segmenter().engine, segmenter().head)
    with pytest.raises(OptionError, match="other classes"):
        Ladder([("full", full, 1), ("small", other, 1)], 0.1)


def test_fallback_without_deadline_and_a_bad_deadline_are_refused(tmp_path):
    streams = config.from_options(["a.mp4"], [])
    with pytest.raises(OptionError, match="without a deadline"):
        config.Settings(tmp_path, streams, fallback=(tmp_path,))
    with pytest.raises(OptionError, match="deadline_ms is 0"):
        config.Settings(tmp_path, streams, deadline_ms=0)
