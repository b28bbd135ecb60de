"""Metrics: cases counted by hand, and random ones compared with loops in plain Python."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.evaluation.metrics import Counts
from edgeseg.mask import agreement
from edgeseg.results.evaluation import ClassScores, Metrics


def measured(truth: Any, prediction: Any, classes: int, ignore: int | None = None) -> Metrics:
    counts = Counts(classes, ignore)
    counts.add(np.array(truth, np.uint8), np.array(prediction, np.uint8))
    return counts.metrics(tuple("abcdefgh"[:classes]))


def test_two_by_two_by_hand() -> None:
    metrics = measured([[0, 0], [1, 1]], [[0, 1], [1, 1]], 2)
    assert metrics.pixel_accuracy == 3 / 4
    assert metrics.per_class["a"].iou == 1 / 2
    assert metrics.per_class["b"].iou == 2 / 3
    assert metrics.miou == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert metrics.per_class["a"].accuracy == 1 / 2
    assert metrics.per_class["b"].accuracy == 1
    assert metrics.mean_accuracy == 3 / 4
    assert metrics.per_class["a"].dice == 2 / 3
    assert metrics.per_class["b"].dice == 4 / 5
    assert metrics.dice == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert [row.pixels for row in metrics.per_class.values()] == [2, 2]


def test_three_by_three_with_an_ignored_corner() -> None:
    truth = [[0, 0, 1], [0, 2, 1], [2, 2, 255]]
    prediction = [[0, 1, 1], [0, 2, 2], [0, 2, 1]]
    metrics = measured(truth, prediction, 3, 255)
    # right: a 2, b 1, c 2; truth: 3, 2, 3; predicted where it counts: a 3, b 2, c 3
    assert metrics.pixel_accuracy == 5 / 8
    assert [row.iou for row in metrics.per_class.values()] == [2 / 4, 1 / 3, 2 / 4]
    assert [row.pixels for row in metrics.per_class.values()] == [3, 2, 3]


@pytest.mark.parametrize("ignore", [0, 1, 9, 255])
def test_predictions_on_ignored_pixels_do_not_matter(ignore: int) -> None:
    truth = np.random.default_rng(0).integers(0, 3, (16, 16)).astype(np.uint8)
    truth[:8, :8] = ignore
    a = truth.copy() % 3
    b = a.copy()
    b[:7, :7] = (b[:7, :7] + 1) % 3
    first, second = measured(truth, a, 3, ignore), measured(truth, b, 3, ignore)
    assert first.per_class.keys() == second.per_class.keys()
    for key in ("miou", "pixel_accuracy", "mean_accuracy", "dice"):
        assert getattr(first, key) == getattr(second, key)


def test_a_class_that_never_occurs_is_left_out_of_the_means() -> None:
    metrics = measured([[0, 1]], [[0, 1]], 3)
    assert metrics.miou == metrics.dice == metrics.mean_accuracy == 1
    assert metrics.per_class["c"] == ClassScores(None, None, None, None, 0)


def test_a_class_that_is_never_predicted_counts_as_zero() -> None:
    metrics = measured([[0, 1]], [[0, 0]], 2)
    assert metrics.per_class["b"].iou == 0
    assert metrics.miou == 1 / 4


def test_a_class_that_is_only_predicted_costs_iou_but_has_no_accuracy() -> None:
    metrics = measured([[0, 0]], [[0, 1]], 2)
    assert metrics.per_class["b"].iou == 0
    assert metrics.per_class["b"].accuracy is None
    assert metrics.mean_accuracy == 1 / 2


def test_if_everything_is_ignored_metrics_are_undefined() -> None:
    metrics = measured([[255, 255]], [[0, 1]], 2, 255)
    assert metrics.miou is metrics.dice is metrics.mean_accuracy is metrics.boundary_f1 is None
    assert metrics.pixel_accuracy == 0


def test_counts_add_up_over_frames_before_they_are_divided() -> None:
    """mIoU of two frames is not the mean of their mIoUs."""
    a = (np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8))
    b = (np.array([[0, 1]], np.uint8), np.array([[1, 1]], np.uint8))
    together = Counts(2)
    for pair in (a, b):
        together.add(*pair)
    assert together.confusion.tolist() == [[16, 1], [0, 1]]
    assert together.metrics(("x", "y")).per_class["x"].iou == 16 / 17


def by_definition(truth: np.ndarray, prediction: np.ndarray, classes: int, ignore: int | None) -> dict[str, Any]:
    """The definitions, pixel by pixel."""
    pairs = [(int(t), int(g)) for t, g in zip(truth.ravel(), prediction.ravel()) if t != ignore]
    iou: list[float] = []
    recall: list[float] = []
    dice: list[float] = []
    for c in range(classes):
        both = sum(t == c and g == c for t, g in pairs)
        either = sum(t == c or g == c for t, g in pairs)
        labeled = sum(t == c for t, _ in pairs)
        predicted = sum(g == c for _, g in pairs)
        if either:
            iou.append(both / either)
            dice.append(2 * both / (labeled + predicted))
        if labeled:
            recall.append(both / labeled)
    right = sum(t == g for t, g in pairs)
    means = {
        key: sum(v) / len(v) if v else None for key, v in (("miou", iou), ("mean_accuracy", recall), ("dice", dice))
    }
    return {**means, "pixel_accuracy": right / len(pairs) if pairs else 0}


@given(
    st.integers(0, 2**32), st.integers(2, 6), st.tuples(*[st.integers(1, 9)] * 2), st.sampled_from([None, 0, 5, 255])
)
def test_any_maps_against_plain_loops(seed: int, classes: int, shape: tuple[int, int], ignore: int | None) -> None:
    random = np.random.default_rng(seed)
    truth, prediction = (random.integers(0, classes, shape).astype(np.uint8) for _ in range(2))
    if ignore is not None:
        truth[random.random(shape) < 0.3] = ignore
    if ignore in (None, 255):
        prediction[random.random(shape) < 0.5] = 0
    truth[(truth >= classes) & (truth != ignore)] = 0
    metrics, expected = measured(truth, prediction, classes, ignore), by_definition(truth, prediction, classes, ignore)
    for key, value in expected.items():
        assert getattr(metrics, key) == (None if value is None else pytest.approx(value)), key


# Boundaries


def disc(x: float, radius: float = 20, size: int = 128) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return np.asarray(np.hypot(rows - size / 2, columns - x) < radius, np.uint8)


def test_equal_maps_have_perfect_boundaries() -> None:
    metrics = measured(disc(60), disc(60), 2)
    assert metrics.boundary_f1 == 1
    assert metrics.per_class["b"].boundary_f1 == 1


def test_boundary_f1_falls_with_every_pixel_of_shift() -> None:
    scores = [measured(disc(60), disc(60 + shift), 2).boundary_f1 for shift in (0, 1, 3, 6, 12)]
    assert scores[0] == 1
    assert scores == sorted(scores, reverse=True)
    assert scores[1] > 0.95  # within the tolerance
    assert scores[-1] < 0.5


def test_boundary_f1_is_sensitive_where_iou_is_not() -> None:
    """A frayed outline: the area is nearly right, the boundary is not."""
    frayed = disc(60)
    frayed[::4][(disc(60, 26) - disc(60, 20))[::4] > 0] = 1
    metrics = measured(disc(60), frayed, 2)
    assert metrics.per_class["b"].iou > 0.75
    assert metrics.boundary_f1 < 0.9


def test_a_missing_object_has_no_boundary() -> None:
    metrics = measured(disc(60), np.zeros((128, 128)), 2)
    assert metrics.per_class["b"].boundary_f1 == 0


def test_maps_without_any_boundary_have_no_boundary_score() -> None:
    assert measured(np.zeros((9, 9)), np.zeros((9, 9)), 2).boundary_f1 is None


def test_the_rim_of_an_ignored_region_is_no_boundary() -> None:
    truth = np.zeros((64, 64), np.uint8)
    truth[20:40, 20:40] = 255
    metrics = measured(truth, np.zeros((64, 64)), 2, 255)
    assert metrics.per_class["a"].boundary_f1 is None


def test_the_tolerance_grows_with_the_frame() -> None:
    """0.75 % of the diagonal: one pixel at 128, eleven at 1024."""
    small = measured(disc(60), disc(64), 2).boundary_f1
    large = measured(disc(480, 160, 1024), disc(484, 160, 1024), 2).boundary_f1
    assert small < 0.8 < 0.99 < large


def test_agreement() -> None:
    a = np.array([[0, 1], [2, 3]], np.uint8)
    assert agreement(a, a) == 1
    assert agreement(a, np.array([[0, 1], [0, 0]], np.uint8)) == 0.5
    assert math.isclose(agreement(a, a[::-1].copy()), 0)
