"""A class that no label holds while pixels are ignored: likely its ids were lost on the way, and eval warns of it."""

import logging
from pathlib import Path

import numpy as np
import pytest
import tiny

from edgeseg.data.dataset import Classes, Dataset
from edgeseg.evaluation.evaluate import count
from edgeseg.files import write_bytes
from edgeseg.images import write_image
from edgeseg.runtime import open_segmenter

NAMES = tiny.SPEC.classes


def warnings(bundle: Path, root: Path, ids: list[int], ignore: int, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is logged about a dataset of one frame whose label has vertical bands of `ids`."""
    classes = Classes(NAMES, tuple((i, 0, 0) for i in range(len(NAMES))), ignore)
    write_bytes(root / "classes.txt", classes.text().encode())
    (frame,) = tiny.frames(1, 0, 64, 96)
    label = np.repeat(np.array(ids, np.uint8), 96 // len(ids) + 1)[:96]
    write_image(root / "test/images/a.png", frame)
    write_image(root / "test/masks/a.png", np.tile(label, (64, 1)))
    with caplog.at_level(logging.WARNING), open_segmenter(bundle) as segmenter:
        count(segmenter, Dataset.open(root, "test"))
    return [record.getMessage() for record in caplog.records if "No label of" in record.getMessage()]


def test_ids_that_were_scaled_to_the_ignored_one(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (text,) = warnings(bundle, tmp_path, [0, 255, *range(2, len(NAMES))], 255, caplog)
    assert f"holds {NAMES[1]}, while" in text and "(id 255): are the ids of the masks right?" in text


def test_several_classes_are_named(bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (text,) = warnings(bundle, tmp_path, [0, 99], 99, caplog)
    assert ", ".join(NAMES[1:]) in text


@pytest.mark.parametrize("ids", [list(range(len(NAMES))), [*range(len(NAMES)), 99], [0]])
def test_no_warning_if_every_class_occurs_or_nothing_is_ignored(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, ids: list[int]
) -> None:
    assert warnings(bundle, tmp_path, ids, 99, caplog) == []
