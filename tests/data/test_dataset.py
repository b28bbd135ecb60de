"""Datasets on disk: errors name the file, what was expected and what to try."""

from pathlib import Path

import numpy as np
import pytest

from edgeseg.data.dataset import Classes, Dataset, read_classes
from edgeseg.errors import FileError, OptionError
from edgeseg.images import write_image

TWO = Classes(("road", "car"), ((128, 64, 128), (0, 0, 142)), 11)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two frames of 4 x 6 pixels in train, one in val."""
    for split, names in (("train", ("a", "b")), ("val", ("c",))):
        for name in names:
            write_image(tmp_path / split / "images" / f"{name}.png", np.full((4, 6, 3), 9, np.uint8))
            write_image(tmp_path / split / "masks" / f"{name}.png", np.array([[0, 1, 11, 0, 1, 1]] * 4, np.uint8))
    (tmp_path / "classes.txt").write_text(TWO.text())
    return tmp_path


def test_a_dataset_is_read(root: Path) -> None:
    dataset = Dataset.open(str(root), "train")
    assert len(dataset) == 2
    assert dataset.classes == Classes(TWO.names, TWO.palette, 11)
    frame, mask = dataset[1]
    assert (frame.shape, frame.dtype, mask.shape, mask.dtype) == ((4, 6, 3), np.uint8, (4, 6), np.uint8)
    assert mask[0].tolist() == [0, 1, 11, 0, 1, 1]


def test_the_digest_depends_on_the_content(root: Path) -> None:
    before = Dataset.open(root, "train").digest()
    assert Dataset.open(root, "train").digest() == before
    write_image(root / "train" / "masks" / "a.png", np.zeros((4, 6), np.uint8))
    assert Dataset.open(root, "train").digest() != before


def test_a_misspelt_split_gets_a_suggestion(root: Path) -> None:
    with pytest.raises(OptionError, match="Unknown split 'trian'") as caught:
        Dataset.open(root, "trian")
    assert "Did you mean 'train'?" in caught.value.hint


def test_a_missing_dataset(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist") as caught:
        Dataset.open(tmp_path / "nowhere", "train")
    assert "edgeseg synth" in caught.value.hint


def test_a_missing_split_lists_the_others(root: Path) -> None:
    with pytest.raises(FileError, match="has no split 'test'") as caught:
        Dataset.open(root, "test")
    assert caught.value.hint == "It has: train, val."


def test_a_split_without_images(root: Path) -> None:
    (root / "val" / "images" / "c.png").unlink()
    with pytest.raises(FileError, match="No images in"):
        Dataset.open(root, "val")


def test_a_missing_mask_is_an_error_of_open(root: Path) -> None:
    (root / "train" / "masks" / "b.png").unlink()
    with pytest.raises(FileError, match=r"b\.png has no mask") as caught:
        Dataset.open(root, "train")
    assert "masks" in caught.value.hint


def test_a_mask_of_another_size(root: Path) -> None:
    write_image(root / "train" / "masks" / "a.png", np.zeros((4, 7), np.uint8))
    with pytest.raises(FileError, match=r"a\.png is 6x4 but its mask is 7x4"):
        Dataset.open(root, "train")[0]


def test_a_label_outside_the_classes(root: Path) -> None:
    write_image(root / "train" / "masks" / "a.png", np.full((4, 6), 2, np.uint8))
    with pytest.raises(FileError, match=r"holds label 2, outside the 2 classes") as caught:
        Dataset.open(root, "train").mask(0)
    assert caught.value.hint == "Ids run from 0 to 1; ignore is 11."


@pytest.mark.parametrize("folder", ["images", "masks"])
@pytest.mark.parametrize("content, message", [(b"", "is empty"), (b"nonsense", "cannot be decoded")])
def test_a_broken_image_or_mask(root: Path, folder: str, content: bytes, message: str) -> None:
    (root / "train" / folder / "a.png").write_bytes(content)
    with pytest.raises(FileError, match=message):
        Dataset.open(root, "train")[0]


@pytest.mark.parametrize(
    "text, message",
    [
        (None, r"Class list .*classes\.txt does not exist"),
        ("", "is empty"),
        ("0 road 128 64\n1 car 0 0 142\n", r"classes\.txt:1: cannot read '0 road 128 64'"),
        ("0 road 128 64 128\none car 0 0 142\n", r"classes\.txt:2: cannot read 'one car 0 0 142'"),
        ("0 road 128 64 128\n2 car 0 0 142\n", r"classes\.txt:2: id 2, expected 1"),
        ("0\n", r"classes\.txt:1: cannot read '0'"),
        ("0 road 128 64 128\n", "lists 1 classes"),
        ("# nothing but a comment\n", "lists 0 classes"),
    ],
)
def test_a_bad_class_list_names_the_line(root: Path, text: str | None, message: str) -> None:
    path = root / "classes.txt"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(FileError, match=message) as caught:
        Dataset.open(root, "train")
    assert caught.value.hint


def test_the_line_of_the_ignore_id_is_only_its_color(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("# id name r g b  (id 2 = ignore)\n0 road 1 2 3\n1 car 4 5 6  # cars\n\n2 void 0 0 0\n")
    assert read_classes(path) == Classes(("road", "car"), ((1, 2, 3), (4, 5, 6)), 2)
