"""data stats: figures that were computed by hand, and the weights that follow from them."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.data.dataset import Classes
from edgeseg.data.stats import class_weights, dataset_stats
from edgeseg.errors import FileError
from edgeseg.images import write_image

Edgeseg = Callable[..., Any]
CLASSES = Classes(("floor", "box", "rare"), ((0, 0, 0), (255, 0, 0), (0, 255, 0)), 255)


def put(root: Path, split: str, name: str, frame: np.ndarray, mask: np.ndarray) -> None:
    write_image(root / split / "images" / f"{name}.png", frame)
    write_image(root / split / "masks" / f"{name}.png", mask)
    (root / "classes.txt").write_text(CLASSES.text())


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two frames of 2x4 and 4x4: reds of 255 and 0, 4 pixels of box, 2 to ignore, nothing rare."""
    mask = np.array([[0, 0, 0, 0], [0, 0, 255, 255]], np.uint8)
    put(tmp_path / "d", "train", "a", np.full((2, 4, 3), (0, 0, 255), np.uint8), mask)
    mask = np.zeros((4, 4), np.uint8)
    mask[:2, :2] = 1
    put(tmp_path / "d", "train", "b", np.zeros((4, 4, 3), np.uint8), mask)
    return tmp_path / "d"


def test_figures_of_a_split(small: Path) -> None:
    split = dataset_stats(small).splits["train"]
    assert (split.frames, split.sizes) == (2, {"4x2": 1, "4x4": 1})
    assert split.mean == (round(8 / 24, 4), 0, 0)
    assert split.std == (round((8 / 24 - (8 / 24) ** 2) ** 0.5, 4), 0, 0)
    assert split.ignored == pytest.approx(2 / 24)
    floor, box, rare = split.classes.values()
    assert (floor.pixels, floor.frames, box.pixels, box.frames, rare.pixels, rare.frames) == (18, 2, 4, 1, 0, 0)
    assert box.share == pytest.approx(4 / 22)


def test_the_weights_are_median_frequencies(small: Path) -> None:
    """floor 18 of 22 pixels, box 4 of the 16 in its frame: the median of 0.818 and 0.25 over each."""
    middle = (18 / 22 + 4 / 16) / 2
    expected = [middle / (18 / 22), middle / (4 / 16), 1]
    assert [c.weight for c in dataset_stats(small).splits["train"].classes.values()] == pytest.approx(
        expected, abs=1e-4
    )
    assert class_weights((10, 10, 20), (40, 40, 40)) == (1, 1, 0.5)
    assert class_weights((0, 0), (0, 0)) == (1, 1)


def test_the_verb_prints_and_writes_them(small: Path, edgeseg: Edgeseg) -> None:
    shown = edgeseg("data", "stats", small)
    assert shown.code == 0 and "floor" in shown.out and "1 of 4x2" in shown.out
    written = json.loads(edgeseg("data", "stats", small, "--json", "-").out)
    assert written["kind"] == "stats" and written["splits"]["train"]["classes"]["box"]["pixels"] == 4


def test_memory_does_not_grow_with_the_frames(tmp_path: Path) -> None:
    frame, mask = np.zeros((256, 256, 3), np.uint8), np.zeros((256, 256), np.uint8)
    peaks = []
    for count in (4, 40):
        for i in range(count):
            put(tmp_path / str(count), "train", f"{i:03}", frame, mask)
        tracemalloc.start()
        dataset_stats(tmp_path / str(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + frame.nbytes


@pytest.mark.parametrize("verb", ["stats", "show", "split", "init"])
def test_a_folder_that_is_no_dataset(verb: str, tmp_path: Path, edgeseg: Edgeseg) -> None:
    words = ["init"] if verb == "init" else ["data", verb]
    (tmp_path / "d").mkdir()
    for root, message in (("missing", "does not exist"), ("d", "none of the splits train, val, test")):
        result = edgeseg(*words, tmp_path / root, "--out", tmp_path / "o") if verb != "stats" else edgeseg(
            *words, tmp_path / root
        )  # fmt: skip
        assert result.code == 2, result.err
        assert (message in result.err) or (verb == "show" and "has no split" in result.err)
        assert not (tmp_path / "o").exists()


def test_a_frame_that_cannot_be_read_is_named(small: Path) -> None:
    (small / "train" / "images" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(FileError, match=r"a\.png cannot be decoded"):
        dataset_stats(small)
    (small / "train" / "masks" / "b.png").unlink()
    with pytest.raises(FileError, match=r"b\.png has no mask"):
        dataset_stats(small)
