"""Intervals: what they contain, how they shrink, and that pairing cancels what both models find hard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.evaluation.metrics import GUESS, RIGHT, TRUTH, Table
from edgeseg.evaluation.statistics import boundary_f1, difference, estimate, intervals, iou_of, miou

NAMES = ("a", "b", "c")


def tables(frames: int, seed: int, good: float = 0.8, spread: float = 0.1) -> Table:
    """Three classes of 1000 pixels a frame; each frame gets about `good` of them right."""
    random = np.random.default_rng(seed)
    made = np.zeros((frames, 3, 7), np.int64)
    made[..., TRUTH] = made[..., GUESS] = 1000
    made[..., RIGHT] = np.clip(1000 * random.normal(good, spread, (frames, 3)), 0, 1000)
    made[..., 3:] = 100
    return made


def test_an_interval_holds_the_figure_of_the_whole_set() -> None:
    found = estimate(tables(50, 0), miou)
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(0.8 / 1.2, abs=0.03)


def test_four_times_the_frames_give_half_the_interval() -> None:
    few, many = estimate(tables(50, 1), miou), estimate(tables(200, 1), miou)
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(2, rel=0.3)


def test_intervals_of_samples_contain_the_truth_about_as_often_as_they_say() -> None:
    population = tables(4000, 2)
    truth = float(miou(population.sum(0)))
    random = np.random.default_rng(3)
    inside = 0
    for _ in range(200):
        found = estimate(population[random.integers(0, 4000, 60)], miou, share=0.9)
        inside += found.low <= truth <= found.high
    assert 0.83 <= inside / 200 <= 0.96


def test_pairing_cancels_what_both_find_hard() -> None:
    before = tables(60, 4, spread=0.2)
    after = before.copy()
    after[..., RIGHT] -= np.random.default_rng(5).integers(0, 20, after.shape[:2])
    after = np.maximum(after, 0)
    paired = difference(before, after, miou)
    alone = estimate(before, miou)
    assert paired.low > 0
    assert paired.high - paired.low < 0.1 * (alone.high - alone.low)


def test_equal_models_differ_by_exactly_nothing() -> None:
    same = tables(20, 6)
    for metric in (miou, boundary_f1, iou_of(1)):
        found = difference(same, same, metric)
        assert (found.value, found.low, found.high) == (0, 0, 0)


def test_a_class_that_never_occurs_has_no_interval_and_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    made = tables(10, 7)
    made[:, 2] = 0
    found = intervals(made, NAMES)
    assert found["iou"]["c"] is None
    assert found["iou"]["a"][0] < found["iou"]["a"][1]
    assert found["miou"][0] <= float(miou(made.sum(0))) <= found["miou"][1]
    assert not recwarn.list


@given(st.integers(1, 30), st.integers(0, 1000))
def test_intervals_lie_in_0_to_1_in_order_and_repeat(frames: int, seed: int) -> None:
    made = tables(frames, seed)
    first, second = intervals(made, NAMES), intervals(made, NAMES)
    assert first == second
    for low, high in (first["miou"], first["boundary_f1"], *first["iou"].values()):
        assert 0 <= low <= high <= 1
