"""Datasets on disk: errors name the file, what was expected and what to try."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from edgeseg.data.dataset import Classes, Dataset, read_classes
from edgeseg.errors import FileError, OptionError
from edgeseg.images import palette_png, write_image

TWO = Classes(("road", "car"), ((128, 64, 128), (0, 0, 142)), 11)


def with_exif(png: bytes, orientation: int) -> bytes:
    """A PNG that says how it is to be turned (eXIf chunk with one TIFF entry)."""
    body = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)
    return (
        png[:33]
        + struct.pack(">I", len(body))
        + b"eXIf"
        + body
        + struct.pack(">I", zlib.crc32(b"eXIf" + body))
        + png[33:]
    )


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
        ("road\n1 car 0 0 142\n", r"classes\.txt:1: cannot read 'road'"),
        ("road\ncar 0 0 142\n", r"classes\.txt:2: cannot read 'car 0 0 142'"),
        ("0 road 128 64 300\n1 car 0 0 142\n", r"classes\.txt:1: cannot read '0 road 128 64 300'"),
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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_and_spaces_in_names(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "classes.txt"
    text = "0 road  surface 1 2 3\r\n1 traffic light 2 4 5 6\r\n2 Fußgänger 7 8 9\r\n"
    path.write_bytes(text.encode(encoding))
    found = read_classes(path)
    assert found.names == ("road  surface", "traffic light 2", "Fußgänger")
    assert found.palette == ((1, 2, 3), (4, 5, 6), (7, 8, 9))
    path.write_text(found.text())
    assert read_classes(path) == found


def test_names_alone_get_colors_that_differ(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("# (id 3 = ignore)\nroad\ntraffic light\ncar 2\nvoid\n")
    found = read_classes(path)
    assert found.names == ("road", "traffic light", "car 2") and found.ignore_index == 3
    colors = np.array(found.palette)
    assert min(np.abs(a - b).sum() for i, a in enumerate(colors) for b in colors[:i]) > 100


def turned_pair(root: Path, orientation: int, shape: tuple[int, int] = (4, 6), mask_tag: int = 1) -> np.ndarray:
    """Image `a` of train says that it is to be turned; the mask is drawn on the stored pixels."""
    image = np.zeros((*shape, 3), np.uint8)
    image[0, 0] = 255
    mask = (image[:, :, 0] > 0).astype(np.uint8)
    for folder, pixels, tag in (("images", image, orientation), ("masks", mask, mask_tag)):
        path = root / "train" / folder / "a.png"
        write_image(path, pixels)
        path.write_bytes(with_exif(path.read_bytes(), tag))
    return mask


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_is_turned_like_its_image(root: Path, orientation: int) -> None:
    turned_pair(root, orientation)
    dataset = Dataset.open(root, "train")
    frame, mask = dataset[0]
    np.testing.assert_array_equal(mask, frame[:, :, 0] > 0)
    np.testing.assert_array_equal(dataset.mask(0), mask)


def test_a_mask_that_was_drawn_on_the_turned_image_stays(root: Path) -> None:
    upright = np.rot90(turned_pair(root, 6), -1)
    write_image(root / "train/masks/a.png", np.ascontiguousarray(upright))
    frame, mask = Dataset.open(root, "train")[0]
    np.testing.assert_array_equal(mask, frame[:, :, 0] > 0)


def test_a_mask_with_the_tag_of_its_image(root: Path) -> None:
    turned_pair(root, 3, mask_tag=3)
    frame, mask = Dataset.open(root, "train")[0]
    np.testing.assert_array_equal(mask, frame[:, :, 0] > 0)


@pytest.mark.parametrize("orientation, shape", [(3, (4, 6)), (2, (4, 6)), (6, (5, 5))])
def test_a_turn_that_cannot_be_told_from_the_size_is_refused(root: Path, orientation: int, shape: tuple) -> None:
    turned_pair(root, orientation, shape)
    with pytest.raises(
        FileError, match=rf"has EXIF orientation {orientation}, and its mask .* may be turned"
    ) as caught:
        Dataset.open(root, "train")[0]
    assert "auto-orient" in caught.value.hint


def test_the_masks_that_run_writes_are_labels(root: Path) -> None:
    ids = np.array([[0, 1, 1, 0, 1, 11]] * 4, np.uint8)
    palette = ((0, 0, 0), (9, 8, 7), *(((255, 0, 0),) * 10))
    (root / "train/masks/a.png").write_bytes(palette_png(ids, palette))
    np.testing.assert_array_equal(Dataset.open(root, "train")[0][1], ids)
