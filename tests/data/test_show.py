"""data show: frames with their labels in color, a class filter, and what augmentation makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.data.dataset import Classes, Dataset
from edgeseg.images import read_image, write_image
from edgeseg.report.labeled_sheet import INK, Tile, labeled_sheet

Edgeseg = Callable[..., Any]
CLASSES = Classes(("background", "car"), ((0, 0, 0), (255, 0, 0)), 255)


def colors(image: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(color) for color in np.unique(image.reshape(-1, 3), axis=0).tolist()}


def test_labels_are_drawn_over_the_frame() -> None:
    frame, mask = np.full((60, 80, 3), 100, np.uint8), np.zeros((60, 80), np.uint8)
    mask[:20], mask[40:] = 1, 255
    sheet = labeled_sheet([Tile("one", frame, mask)], CLASSES, width=80)
    found = colors(sheet)
    assert (45, 45, 185) in found, "car: 55 % red over 45 % of the frame"
    assert (100, 100, 100) in found, "background stays as it is"
    assert INK in found, "ignored pixels are striped"
    assert (100, 100, 100) in colors(labeled_sheet([Tile("one", frame)], CLASSES, width=80))


@pytest.mark.parametrize("count", [1, 4, 5, 9])
@pytest.mark.parametrize("shape", [(10, 300), (300, 10), (64, 96)])
def test_any_number_of_any_shape(count: int, shape: tuple[int, int]) -> None:
    tile = Tile("ünïcode", np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8))
    sheet = labeled_sheet([tile] * count, CLASSES, width=64, columns=4)
    assert sheet.shape[1] == min(count, 4) * 70 + 6
    assert sheet.dtype == np.uint8 and sheet.ndim == 3


def test_the_verb_filters_by_class(street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    part = Dataset.open(street, "train")
    cars = part.classes.names.index("car")
    holding = sum(bool((part.mask(i) == cars).any()) for i in range(len(part)))
    result = edgeseg("data", "show", street, "--class", "car", "--count", "5", "--out", tmp_path / "s.png")
    assert result.code == 0 and f"{min(5, holding)} of {holding} frames of train with car" in result.out
    assert read_image(tmp_path / "s.png").shape[1] == 4 * 326 + 6


def test_augmentation_is_what_training_sees(street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    pytest.importorskip("torch", reason="needs edgeseg[train]")
    from edgeseg.recipe import Recipe
    from edgeseg.training.preview import augmented

    recipe = tmp_path / "r.toml"
    plain = "flip = false\njitter = 0.0\nscale = [1.0, 1.0]\n"
    recipe.write_text(
        f'name = "x"\n[data]\nroot = "{street}"\nsize = [64, 96]\n[student]\n{plain}[teacher]\nrotate = 90.0'
    )
    loaded, part = Recipe.load(recipe), Dataset.open(street, "train")
    frame, mask = part[3]
    (seen, labels), _ = augmented(part, loaded, loaded.student, 3, 2)
    assert (seen == frame).all() and (labels == mask).all(), "without augmentation, the frame itself"
    (first, _), (second, turned) = augmented(part, loaded, loaded.teacher, 3, 2)
    assert (first != second).any() and (turned == 255).any()
    words = ("data", "show", street, "--count", "2", "--augment", recipe, "--role", "teacher")
    assert edgeseg(*words, "--out", tmp_path / "s.png").code == 0
    assert read_image(tmp_path / "s.png").shape[0] > 2 * 200


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--class", "catr"], "Did you mean 'car'?"),
        (["--split", "vall"], "Did you mean 'val'?"),
        (["--out", "{tmp}/sheet.txt"], "Use one of"),
        (["--augment", "{tmp}/none.toml"], "does not exist"),
        (["--augment", "{recipe}", "--role", "pupil"], "teacher"),
    ],
)
def test_what_cannot_be_shown(words: list[str], message: str, street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(f'name = "x"\n[data]\nroot = "{street}"\nsize = [64, 96]\n')
    given = [word.format(tmp=tmp_path, recipe=recipe) for word in words]
    result = edgeseg("data", "show", street, "--out", tmp_path / "s.png", *given)
    assert result.code == 2 and message in result.err, result.err
    assert not (tmp_path / "s.png").exists()


def test_a_class_that_no_frame_holds(tmp_path: Path, edgeseg: Edgeseg) -> None:
    write_image(tmp_path / "d/train/images/a.png", np.zeros((8, 8, 3), np.uint8))
    write_image(tmp_path / "d/train/masks/a.png", np.zeros((8, 8), np.uint8))
    (tmp_path / "d/classes.txt").write_text(CLASSES.text())
    result = edgeseg("data", "show", tmp_path / "d", "--class", "car", "--out", tmp_path / "s.png")
    assert result.code == 2 and "holds 'car'" in result.err and "--split" in result.err
