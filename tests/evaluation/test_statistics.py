"""Intervals: their coverage and width, and that pairing cancels the frames that are hard for both models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.evaluation.metrics import PREDICTED, RIGHT, TRUTH, Table
from edgeseg.evaluation.statistics import boundary_f1, difference, estimate, intervals, iou_of, miou

NAMES = ("a", "b", "c")


def tables(frames: int, seed: int, accuracy: float = 0.8, spread: float = 0.1) -> Table:
    """Three classes of 1000 pixels per frame, of which a share of about `accuracy` is right."""
    random = np.random.default_rng(seed)
    counts = np.zeros((frames, 3, 7), np.int64)
    counts[..., TRUTH] = counts[..., PREDICTED] = 1000
    counts[..., RIGHT] = np.clip(1000 * random.normal(accuracy, spread, (frames, 3)), 0, 1000)
    counts[..., 3:] = 100
    return counts


def test_an_interval_holds_the_figure_of_the_whole_set() -> None:
    found = estimate(tables(50, 0), miou)
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(0.8 / 1.2, abs=0.03)


def test_four_times_the_frames_give_half_the_interval() -> None:
    few, many = estimate(tables(50, 1), miou), estimate(tables(200, 1), miou)
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(2, rel=0.3)


def test_intervals_contain_the_true_value_about_as_often_as_their_share() -> None:
    population = tables(4000, 2)
    truth = float(miou(population.sum(0)))
    random = np.random.default_rng(3)
    inside = 0
    for _ in range(200):
        found = estimate(population[random.integers(0, 4000, 60)], miou, share=0.9)
        inside += found.low <= truth <= found.high
    assert 0.83 <= inside / 200 <= 0.96


def test_pairing_cancels_frames_that_are_hard_for_both() -> None:
    before = tables(60, 4, spread=0.2)
    after = before.copy()
    after[..., RIGHT] -= np.random.default_rng(5).integers(0, 20, after.shape[:2])
    after = np.maximum(after, 0)
    paired = difference(before, after, miou)
    unpaired = estimate(before, miou)
    assert paired.low > 0
    assert paired.high - paired.low < 0.1 * (unpaired.high - unpaired.low)


def test_equal_models_differ_by_exactly_zero() -> None:
    same = tables(20, 6)
    for metric in (miou, boundary_f1, iou_of(1)):
        found = difference(same, same, metric)
        assert (found.value, found.low, found.high) == (0, 0, 0)


def test_a_class_that_never_occurs_has_no_interval_and_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    counts = tables(10, 7)
    counts[:, 2] = 0
    result = intervals(counts, NAMES)
    assert result.iou["c"] is None
    assert result.iou["a"] is not None and result.iou["a"][0] < result.iou["a"][1]
    assert result.miou is not None and result.miou[0] <= float(miou(counts.sum(0))) <= result.miou[1]
    assert not recwarn.list


@given(st.integers(1, 30), st.integers(0, 1000))
def test_intervals_lie_in_0_to_1_in_order_and_repeat(frames: int, seed: int) -> None:
    counts = tables(frames, seed)
    first, second = intervals(counts, NAMES), intervals(counts, NAMES)
    assert first == second
    for interval in (first.miou, first.boundary_f1, *first.iou.values()):
        assert interval is not None and 0 <= interval[0] <= interval[1] <= 1
