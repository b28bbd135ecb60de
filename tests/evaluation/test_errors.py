"""Errors by distance to edges, object size and brightness, counted by hand; test-time augmentation."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgeseg import tiling
from edgeseg.data.dataset import Dataset
from edgeseg.errors import OptionError
from edgeseg.evaluation.augmented import Augmented
from edgeseg.evaluation.errors import Errors
from edgeseg.evaluation.evaluate import evaluate
from edgeseg.evaluation.metrics import Counts
from edgeseg.result import Frame
from edgeseg.runtime import open_segmenter


def image(brightness: int, shape: tuple[int, int]) -> np.ndarray:
    return np.full((*shape, 3), brightness, np.uint8)


def test_bands_around_one_edge() -> None:
    truth = np.zeros((10, 40), np.uint8)
    truth[:, 20:] = 1
    prediction = truth.copy()
    prediction[:, 20] = 0  # wrong by one column, right at the edge
    errors = Errors(2)
    errors.add(image(0, truth.shape), truth, prediction)
    rows = errors.summary(np.zeros((1, 2, 7), np.int64), ("a", "b")).edges
    assert [row.pixels for row in rows] == [20, 20, 40, 80, 160, 80]
    assert [row.accuracy for row in rows] == [0.5, 1, 1, 1, 1, 1]
    assert rows[-1].upto_px is None


def test_objects_by_size_count_as_found_if_half_of_them_is_right() -> None:
    truth = np.zeros((100, 100), np.uint8)
    truth[10:12, 10:12] = 1  # 4 pixels: over 0.01 %, under 0.1 %
    truth[50:60, 50:60] = 1  # 100 pixels: 1 %
    truth[80, 80:84] = 1
    prediction = truth.copy()
    prediction[10, 10:12] = 0  # half of it right: found
    prediction[50:60, 50:56] = 0  # 40 % right: not found
    errors = Errors(3)
    errors.add(image(0, truth.shape), truth, prediction)
    by_class = errors.summary(np.zeros((1, 3, 7), np.int64), ("a", "b", "c")).objects
    assert [(row.found, row.objects) for row in by_class["b"]] == [(None, 0), (1.0, 2), (0.0, 1), (None, 0)]
    assert [row.objects for row in by_class["a"]] == [0, 0, 0, 1]
    assert [row.objects for row in by_class["c"]] == [0, 0, 0, 0]


def test_ignored_pixels_are_in_no_band_and_no_object() -> None:
    truth = np.full((20, 20), 255, np.uint8)
    errors = Errors(2, 255)
    errors.add(image(0, truth.shape), truth, np.zeros_like(truth))
    study = errors.summary(np.zeros((1, 2, 7), np.int64), ("a", "b"))
    assert sum(row.pixels for row in study.edges) == 0
    assert sum(row.objects for rows in study.objects.values() for row in rows) == 0


def test_slices_by_brightness() -> None:
    errors, counts = Errors(2), Counts(2)
    truth = np.array([[0, 1]] * 4, np.uint8)
    for brightness, right in ((200, True), (10, False), (100, True)):
        prediction = truth if right else 1 - truth
        errors.add(image(brightness, truth.shape), truth, prediction)
        counts.add(truth, prediction)
    rows = errors.summary(counts.tables(), ("a", "b")).slices
    assert [(row.slice, row.miou) for row in rows] == [
        ("brightness 10 to 10", 0.0),
        ("brightness 100 to 100", 1.0),
        ("brightness 200 to 200", 1.0),
    ]


def test_a_study_through_the_command_line(
    edgeseg: Callable[..., Any], bundle: Path, bundle_of: Callable[[str, str], Path], street: Path, tmp_path: Path
) -> None:
    page = tmp_path / "errors.html"
    other = bundle_of("onnxruntime-cpu", "fp32")
    ran = edgeseg("eval", bundle, "--data", street, "--page", page, "--beside", other)
    assert ran.code == 0, ran.err
    text = page.read_text()
    for heading in ("What is taken for what", "Near edges and inside", "Objects found", "Dark and bright frames"):
        assert heading in text
    assert text.count("<img ") == 4 and len(list((tmp_path / "errors").glob("*.jpg"))) == 4
    assert (
        "--beside draws pictures, and none are written"
        in edgeseg("eval", bundle, "--data", street, "--beside", other).err
    )


def test_one_scale_without_flip_predicts_what_the_segmenter_predicts(bundle: Path) -> None:
    frames = [Frame(f, i) for i, f in enumerate(tiny.frames(3, 2, 90, 130))]
    with open_segmenter(bundle, threads=1) as segmenter:
        for result in Augmented(segmenter).stream(frames):
            assert (result.classmap == segmenter(result.frame.image).classmap).mean() > 0.999
            assert result.times["infer"] > 0


def test_with_flip_a_mirrored_frame_gives_the_mirrored_map(bundle: Path) -> None:
    (frame,) = tiny.frames(1, 4)
    with open_segmenter(bundle, threads=1) as segmenter:
        augmented = Augmented(segmenter, (1.0, 1.5), flip=True)
        maps = [r.classmap for r in augmented.stream([Frame(frame), Frame(np.ascontiguousarray(frame[:, ::-1]))])]
        plain = segmenter(frame).classmap
    assert (maps[0] == maps[1][:, ::-1]).mean() > 0.999
    assert maps[0].shape == plain.shape and (maps[0] == plain).mean() > 0.5


def test_averaged_evaluation_has_the_same_figures(bundle: Path, street: Path) -> None:
    with open_segmenter(bundle, threads=1) as segmenter:
        dataset = Dataset.open(street, "test")
        plain, averaged = evaluate(segmenter, dataset), evaluate(Augmented(segmenter, (1.25,), True), dataset)
    assert list(averaged.per_class) == list(plain.per_class)
    assert averaged.frames == 4 and averaged.miou is not None and 0 <= averaged.miou <= 1
    assert averaged.miou != plain.miou


@pytest.mark.parametrize("size", [64, 65, 80, 96, 97, 200])
def test_windows_cover_the_frame_and_overlap_by_half(size: int) -> None:
    starts = tiling.starts(size, 64, 32)
    assert starts[0] == 0 and starts[-1] == size - 64
    assert all(0 < b - a <= 32 for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize("scales", [(), (0.5,), (1.0, 5.0)])
def test_scales_out_of_range(bundle: Path, scales: tuple[float, ...]) -> None:
    with (
        open_segmenter(bundle, threads=1) as segmenter,
        pytest.raises(OptionError, match=r"cannot be evaluated\.\nExpected numbers from 1 to 4"),
    ):
        Augmented(segmenter, scales)


def test_scales_that_are_not_numbers(edgeseg: Callable[..., Any], bundle: Path, street: Path) -> None:
    ran = edgeseg("eval", bundle, "--data", street, "--scales", "big")
    assert ran.code == 2 and "--scales 'big' is not a list of numbers" in ran.err
