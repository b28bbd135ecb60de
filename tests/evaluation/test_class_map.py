"""eval --map: a network whose classes are not the labels', against the same counted by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg.bundle import Bundle
from edgeseg.data.dataset import Classes, Dataset
from edgeseg.data.mapping import read_match
from edgeseg.errors import OptionError
from edgeseg.evaluation.metrics import Counts
from edgeseg.images import write_image
from edgeseg.runtime import open_segmenter
from edgeseg.spec import default_palette

# Of the labels (0 ground, 1 tree top, 2 car, 3 thing) and of the network (the eight classes of the street).
LABELS = ("ground", "tree top", "car", "thing")
MAP = """
other = "ignore"
[classes]
flat = ["ground", "road", "pavement"]
green = ["tree top", "tree"]
car = "car"
"""
TRUTH = np.array([0, 1, 2, 255])  # evaluation id of each label
SEEN = np.array([0, 0, 9, 9, 1, 9, 2, 9])  # and of each of the network's classes; 9: none


@pytest.fixture
def data(street: Path, tmp_path: Path) -> Path:
    """The street's test frames with labels of other classes, made from its own."""
    table = np.array([0, 0, 3, 3, 1, 3, 2, 3], np.uint8)
    dataset = Dataset.open(street, "test")
    for i, image in enumerate(dataset.images):
        frame, label = dataset[i]
        write_image(tmp_path / f"data/test/images/{image.stem}.png", frame)
        write_image(tmp_path / f"data/test/masks/{image.stem}.png", table[label])
    (tmp_path / "data/classes.txt").write_text("\n".join(LABELS))
    (tmp_path / "map.toml").write_text(MAP)
    return tmp_path / "data"


def test_eval_with_a_map_counts_as_by_hand(edgeseg: Callable[..., Any], bundle: Path, data: Path) -> None:
    path = data.parent / "map.toml"
    ran = edgeseg("eval", bundle, "--data", data, "--map", path, "--json", data.parent / "e.json")
    assert ran.code == 0, ran.err
    found = json.loads((data.parent / "e.json").read_text())
    right, seen, true = np.zeros((3, 3), np.int64)
    dataset = Dataset.open(data, "test")
    with open_segmenter(bundle) as segmenter:
        for i in range(len(dataset)):
            frame, label = dataset[i]
            truth, prediction = TRUTH[label], SEEN[segmenter(frame).classmap]
            for c in range(3):
                right[c] += ((truth == c) & (prediction == c)).sum()
                seen[c] += ((truth != 255) & (prediction == c)).sum()
                true[c] += (truth == c).sum()
    assert list(found["per_class"]) == ["flat", "green", "car"] and found["class_map"] == "map.toml"
    for c, row in enumerate(found["per_class"].values()):
        assert row["iou"] == pytest.approx(right[c] / (seen[c] + true[c] - right[c])) and row["pixels"] == true[c]
    assert found["pixel_accuracy"] == pytest.approx(right.sum() / true.sum())
    assert found["miou"] == pytest.approx(np.mean([row["iou"] for row in found["per_class"].values()]))


def test_a_prediction_of_no_class_is_wrong_and_no_class_s() -> None:
    counts = Counts(2, 255)
    counts.add(np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 9, 255, 9]], np.uint8))
    assert counts.confusion.tolist() == [[1, 0], [0, 0]]
    metrics = counts.metrics(("a", "b"))
    assert (metrics.per_class["a"].iou, metrics.per_class["b"].iou, metrics.pixel_accuracy) == (0.5, 0, 1 / 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'other = "ignore"\n[classes]\nflat = "rode"\nb = "car"',
            "neither the labels nor the network have the class 'rode'",
        ),
        ('[classes]\nflat = ["ground", "road"]\ncar = "car"', "has no place for: tree top, thing, pavement"),
        ('other = "ignore"\n[classes]\na = "car"\nb = "car"', "'car' is named twice"),
    ],
)
def test_maps_that_cannot_be_used(text: str, message: str, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(text)
    classes = Classes(LABELS, default_palette(4), 255)
    with pytest.raises(OptionError, match=message):
        read_match(tmp_path / "map.toml", classes, Bundle.load(bundle).spec.classes)


def test_without_a_map_it_is_offered(edgeseg: Callable[..., Any], bundle: Path, data: Path) -> None:
    ran = edgeseg("eval", bundle, "--data", data)
    assert ran.code == 2 and "edgeseg eval --map FILE" in ran.err
    drawn = edgeseg("eval", bundle, "--data", data, "--map", data.parent / "map.toml", "--page", data.parent / "p.html")
    assert drawn.code == 2 and "Leave out --pictures, --page" in drawn.err
