"""The choice of INT8's variant: by the figures it is given, and only as many as it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("onnx")

from edgeseg.quantization.variants import RARE, Score, Variant, choose, score
from edgeseg.recipe import PTQ

RANGES = ("minmax", "mean", "percentile", "entropy")
PLAIN = Variant(PTQ("minmax"))


def chosen(figures: dict[str, tuple[float, float]], otherwise: tuple[float, float]) -> tuple[str, list[str]]:
    """What is chosen where variants, by their text, have these figures, and all that was measured."""
    measured: list[str] = []

    def measure(variant: Variant) -> Score:
        measured.append(str(variant))
        return Score(*figures.get(str(variant), otherwise))

    def exclusions(base: Variant) -> Iterator[Variant]:
        yield replace(base, excluded=("last",))
        yield replace(base, excluded=("last", "noisy"))

    return str(choose(RANGES, PLAIN, measure, exclusions)[0]), measured


def test_nothing_else_is_tried_where_the_first_is_good() -> None:
    assert chosen({}, (0.996, 0.96)) == ("ranges minmax", ["ranges minmax"])


def test_a_rare_class_that_is_lost_is_not_good() -> None:
    """Of ten classes one lost, and with it 0.1 % of the pixels."""
    best, measured = chosen({"ranges mean": (0.996, 0.93)}, (0.999, 0.90))
    assert best == "ranges mean" and measured == ["ranges minmax", "ranges mean", "ranges percentile"]


def test_below_the_floor_cheap_steps_follow_until_one_is_above_it() -> None:
    best, measured = chosen({"ranges mean": (0.9, 0.8), "ranges mean, 1 layers float": (0.985, 0.9)}, (0.8, 0.7))
    assert best == "ranges mean, 1 layers float"
    assert measured[3:] == [
        "ranges entropy", "ranges mean, equalized", "ranges mean, biases as they are", "ranges mean, 1 layers float",
    ]  # fmt: skip


def test_a_step_builds_on_what_helped() -> None:
    best, measured = chosen({"ranges minmax, equalized": (0.9, 0.85)}, (0.8, 0.7))
    assert best == "ranges minmax, equalized"
    assert measured[-2:] == ["ranges minmax, equalized, 1 layers float", "ranges minmax, equalized, 2 layers float"]


def test_the_best_of_all_where_none_is_above_the_floor() -> None:
    best, measured = chosen({"ranges minmax, 2 layers float": (0.9, 0.8)}, (0.8, 0.7))
    assert best == "ranges minmax, 2 layers float" and len(measured) == 8


def test_the_score_is_the_mean_iou_over_classes_that_occur() -> None:
    expected = np.zeros((100, 100), np.uint8)
    expected[:10] = 1
    expected[99, :4] = 2  # too few pixels to say anything
    found = expected.copy()
    found[:5] = 0
    assert (expected == 2).mean() < RARE
    result = score([found], [expected], 4)
    assert result.agreement == pytest.approx(0.95)
    assert result.miou == pytest.approx(((8996 / 9496) + 0.5) / 2)
