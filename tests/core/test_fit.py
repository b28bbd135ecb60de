"""How frames fit the network's input, and class maps the frame: in Python, on the board, and in a whole bundle."""

from __future__ import annotations

import importlib.util
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.bundle import Bundle
from edgeseg.errors import OptionError
from edgeseg.fit import OUTSIDE, fit_frame, fit_labels, place, unfit
from edgeseg.images import write_image
from edgeseg.overlay import Overlay
from edgeseg.runtime import open_segmenter
from edgeseg.spec import FITS, Spec

Run = Callable[..., Any]
SIDES = st.integers(1, 400)


def spec(fit: str, height: int = 64, width: int = 96) -> Spec:
    return Spec(height, width, ("a", "b", "c"), fit=fit)


@given(st.sampled_from(FITS), SIDES, SIDES)
def test_boxes_lie_inside_and_keep_proportions(fit: str, height: int, width: int) -> None:
    placed = place(spec(fit), height, width)
    seen, filled = placed.seen, placed.filled
    assert seen.left >= 0 and seen.left + seen.width <= width and seen.top >= 0 and seen.top + seen.height <= height
    assert filled.left >= 0 and filled.left + filled.width <= 96
    assert filled.top >= 0 and filled.top + filled.height <= 64
    assert min(seen.width, seen.height, filled.width, filled.height) >= 1
    if fit in ("letterbox", "pad", "crop") and min(seen.width, seen.height, filled.width, filled.height) > 10:
        across, down = filled.width / seen.width, filled.height / seen.height
        assert across == pytest.approx(down, rel=0.1)
    if fit == "letterbox":
        assert filled.width == 96 or filled.height == 64
    if fit == "crop":
        assert (filled.width, filled.height) == (96, 64) and (seen.width == width or seen.height == height)
    if fit == "pad":
        assert (filled.left, filled.top) == (0, 0) and filled.width <= max(1, width)


@given(st.sampled_from(FITS), st.integers(0, 1000), st.integers(8, 200), st.integers(8, 200))
def test_labels_go_in_and_come_back_where_they_were(fit: str, seed: int, height: int, width: int) -> None:
    """A disk, large beside the rounding: only its edge may move."""
    labels = np.zeros((height, width), np.uint8)
    cv2.circle(labels, (width // 2, height // 2), min(height, width) // 3, 1, cv2.FILLED)
    back = unfit(fit_labels(labels, spec(fit), 9), spec(fit), height, width)
    assert back.shape == labels.shape and 9 not in back
    visible = back != OUTSIDE
    step = max(1.0, width / 96, height / 64, 96 / width, 64 / height)
    wrong = (back != labels) & visible
    assert wrong.sum() <= 8 * step * (height + width) and (fit == "crop" or visible.all())


def test_frames_are_padded_with_the_color_of_the_spec() -> None:
    frame = np.full((32, 96, 3), 200, np.uint8)
    entry = fit_frame(frame, replace(spec("letterbox"), pad_color=(10, 20, 30)))
    assert (entry[:16] == (30, 20, 10)).all() and (entry[48:] == (30, 20, 10)).all()
    assert (entry[16:48] == 200).all()
    assert (fit_frame(frame, spec("pad"))[:32] == 200).all() and (fit_frame(frame, spec("pad"))[32:] == 114).all()
    tall = np.zeros((96, 96, 3), np.uint8)
    tall[16:80] = 200
    assert (fit_frame(tall, spec("crop")) == 200).all()


def test_memory_that_is_given_is_filled() -> None:
    into = np.zeros((64, 96, 3), np.uint8)
    for fit in FITS:
        assert np.shares_memory(fit_frame(np.full((50, 40, 3), 7, np.uint8), spec(fit), into), into)
        assert 7 in into


def test_an_unknown_fit_is_an_error() -> None:
    with pytest.raises(OptionError, match="fit 'squash'"):
        spec("squash")
    with pytest.raises(OptionError, match="interpolation 'lanczos'"):
        replace(spec("crop"), interpolation="lanczos")
    with pytest.raises(OptionError, match="pad_color"):
        replace(spec("crop"), pad_color=(1, 2, 300))


def test_older_bundles_and_models_read_as_before() -> None:
    assert not {"fit", "interpolation", "pad_color"} & set(spec("stretch").to_dict())
    assert Spec.from_dict(spec("letterbox").to_dict()) == spec("letterbox")


@pytest.fixture(scope="module")
def runner() -> types.ModuleType:
    path = Path(__file__).parents[2] / "edgeseg/runner/runner.py"
    found = importlib.util.spec_from_file_location("runner_of_fit", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(64, 96), (50, 200), (200, 50), (30, 40), (480, 641)])
def test_the_runner_of_old_boards_does_the_same(runner: types.ModuleType, fit: str, size: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    board = object.__new__(runner.Segmenter)
    board.size, board.fit, board.interpolation, board.pad_color = (96, 64), fit, cv2.INTER_LINEAR, (114, 114, 114)
    assert np.array_equal(board.entry(frame), fit_frame(frame, spec(fit)))


@pytest.mark.parametrize("fit", ["letterbox", "crop", "pad"])
def test_a_bundle_is_evaluated_in_the_frames_geometry(
    fit: str, network: Path, street: Path, tmp_path: Path, edgeseg: Run
) -> None:
    """On frames of another shape, labeled by what the network says of the fitted frame, nothing is wrong."""
    ran = edgeseg("compile", network, "--fit", fit, "-t", "onnxruntime-cpu", "-o", tmp_path / "bundle")
    assert ran.code == 0, ran.err
    chosen = Bundle.load(tmp_path / "bundle").spec
    assert chosen.fit == fit
    with open_segmenter(tmp_path / "bundle") as segmenter:
        for i, frame in enumerate(tiny.frames(3, 5, 200, 120)):
            classmap = segmenter(frame).classmap
            label = unfit(classmap, chosen, 200, 120)
            label[label == OUTSIDE] = 0  # a label there must not count
            write_image(tmp_path / "data/test/images" / f"{i}.png", frame)
            write_image(tmp_path / "data/test/masks" / f"{i}.png", label)
            drawn = Overlay(chosen).draw(frame, classmap)
            assert drawn.shape == frame.shape
            if fit == "crop":
                assert np.array_equal(drawn[-3:], frame[-3:])  # not seen, not tinted
    (tmp_path / "data/classes.txt").write_bytes((street / "classes.txt").read_bytes())
    ran = edgeseg("eval", tmp_path / "bundle", "--data", tmp_path / "data")
    assert ran.code == 0 and "pixel accuracy 100.00 %" in ran.out, ran.out + ran.err
