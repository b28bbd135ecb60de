"""RandomDraw: every frame of a window is as likely as any other, and what that makes of collect and of an interval."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_collect import Hand, clock, collect, feed, lines, result  # noqa: F401 -- a fixture

from edgeseg.errors import OptionError
from edgeseg.evaluation.metrics import table_of
from edgeseg.evaluation.statistics import intervals, miou, share_of_few
from edgeseg.monitoring.random_draw import RandomDraw
from edgeseg.result import Frame, Result

DAY = 86400


def frame(index: int) -> Result:
    return Result(Frame(np.zeros((1, 1, 3), np.uint8), index), np.zeros((1, 1), np.uint8), {})


def draws(times: list[float], seconds: float, seed: int) -> list[int]:
    """The numbers of the frames at `times` that are drawn."""
    draw = RandomDraw(seconds, times[0], random.Random(seed))
    found = [draw.offer(frame(i), at) for i, at in enumerate(times)]
    return [one.result.frame.index for one in [*found, draw.finish(times[-1])] if one is not None]


def test_every_frame_of_a_window_is_as_likely_as_any_other() -> None:
    counts = Counter(index for seed in range(4000) for index in draws([float(i) for i in range(41)], 10.0, seed))
    assert all(300 < counts[i] < 500 for i in range(40)) and sum(counts.values()) < 4 * 4000 + 400


def test_a_window_that_is_cut_off_gives_a_frame_as_often_as_it_is_long() -> None:
    found = [len(draws([0.0, 1.0, 2.0, 2.5], 10.0, seed)) for seed in range(2000)]
    assert np.mean(found) == pytest.approx(0.25, abs=0.03)


@given(st.lists(st.floats(0, 60), min_size=1, max_size=60), st.floats(0.5, 40), st.integers(0, 99))
def test_one_frame_of_each_window_that_has_any(steps: list[float], seconds: float, seed: int) -> None:
    times = np.cumsum(steps).tolist()
    found = draws(times, seconds, seed)
    windows = [(times[i] - times[0]) // seconds for i in found]
    assert found == sorted(found) and len(set(windows)) == len(windows)
    complete = {(at - times[0]) // seconds for at in times} - {(times[-1] - times[0]) // seconds}
    assert complete <= set(windows) or len(complete - set(windows)) <= 1  # a frame exactly at an edge, rounded


def test_collect_keeps_a_tenth_at_random_by_default(tmp_path: Path, clock: Hand) -> None:  # noqa: F811
    source = random.Random(4)
    with collect(tmp_path / "c", clock, random=None, per_day=DAY, every=10.0, source=source) as sink:
        feed(sink, clock, [result(i, margin=5.0 + i % 3) for i in range(120)])
    drawn = [row for row in lines(tmp_path / "c") if "random" in row["why"]]
    assert len(drawn) in (11, 12, 13) and all(row["why"] == {"random": 1.0} for row in drawn)
    assert [row["frame"] // 10 for row in drawn[:11]] == list(range(11))
    begin = clock.wall - 120
    assert all(row["time"] == pytest.approx(begin + 1 + row["frame"]) for row in drawn)  # not when it was decided


def test_the_chosen_ones_leave_room_for_the_random_ones_of_a_day(tmp_path: Path, clock: Hand) -> None:  # noqa: F811
    with collect(tmp_path / "c", clock, per_day=20, random=15) as sink:
        feed(sink, clock, [result(i, margin=100.0 - i) for i in range(60)])
    assert len([row for row in lines(tmp_path / "c") if "random" not in row["why"]]) == 5
    with pytest.raises(OptionError, match=r"random=21 of per_day=20 frames"):
        collect(tmp_path / "d", clock, per_day=20, random=21)


def test_no_frame_makes_room_for_what_it_shows_if_it_was_drawn(tmp_path: Path) -> None:
    """Chosen frames, worth however much, remove no random one; of the random ones the oldest goes first."""
    import tiny

    from edgeseg.monitoring.ring import Ring

    size = Ring(tmp_path / "probe", tiny.SPEC, 10**7)
    size.add(result(0), "s", {"diverse": 1.0}, 1.8e9)
    ring = Ring(tmp_path / "c", tiny.SPEC, int(30.5 * size.bytes_used))
    for i in range(200):
        ring.add(result(i), "s", {"random": 1.0} if i % 10 == 0 else {"uncertain": 1.0, "novel": 1.0}, 1.8e9 + i)
    drawn = [row.frame for row in ring.kept if "random" in row.why]
    assert drawn == [170, 180, 190] and 25 < len(ring.kept) <= 31 and ring.bytes_used <= 30.5 * size.bytes_used * 1.01


@pytest.mark.parametrize("windows", [12, 40])
def test_the_interval_of_the_frames_drawn_covers_the_accuracy_of_the_whole_stream(windows: int) -> None:
    """Scenes of 40 frames that are alike; of each window one frame is drawn: 300 times."""
    source = np.random.default_rng(3)
    tables = []
    for _ in range(60):
        wrong = source.beta(1.5, 6, 4)
        for _ in range(40):
            truth = np.diag(source.integers(200, 900, 4) * np.array([4, 3, 2, 1]))
            lost = np.round(np.diag(truth) * np.clip(wrong + source.normal(0, 0.02, 4), 0, 1)).astype(int)
            confusion = truth - np.diag(lost) + np.roll(np.diag(lost), 1, axis=1)
            tables.append(table_of(confusion))
    population = np.array(tables)
    expected = float(miou(population.sum(0)))
    edges = np.linspace(0, len(population), windows + 1).astype(int)
    covered = 0
    for seed in range(300):
        chosen = [int(source.integers(a, b)) for a, b in pairwise(edges)]
        ends = intervals(population[chosen], tuple("abcd"), seed, share_of_few(windows)).miou
        assert ends is not None
        covered += ends[0] <= expected <= ends[1]
    assert 0.91 <= covered / 300 <= 0.995
