"""Labels of other tools come in: formats recognized, class maps exact, faults named one by one, the rest imported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.data import formats
from edgeseg.data.dataset import SPLITS, Dataset
from edgeseg.data.importing import ImportResult, import_dataset
from edgeseg.errors import FileError, OptionError
from edgeseg.images import write_image

pytest.importorskip("pycocotools", reason="needs edgeseg[data]")
H, W = 24, 32
Edgeseg = Callable[..., Any]


def box(x0: int, y0: int, x1: int, y1: int) -> list[float]:
    """The polygon around pixels x0..x1-1, y0..y1-1."""
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def rle(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed RLE, as COCO defines it: column-major, zeros first."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": ([0] if flat[0] else []) + runs}


def compressed(mask: np.ndarray) -> dict[str, Any]:
    from pycocotools import mask as coder

    coded = coder.encode(np.asfortranarray(mask))
    return {"size": coded["size"], "counts": coded["counts"].decode()}


def coco(folder: Path, *segmentations: Any, file_name: str = "a.png", **more: Any) -> Path:
    """One image and its annotations, of categories 5 (cat) and 9 (dog) in turn."""
    write_image(folder / "a.png", np.full((H, W, 3), 90, np.uint8))
    document = {
        "images": [{"id": 1, "file_name": file_name, "height": H, "width": W}],
        "categories": [{"id": 9, "name": "dog"}, {"id": 5, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": (5, 9)[i % 2], "segmentation": s}
            for i, s in enumerate(segmentations)
        ],
        **more,
    }
    (folder / "labels.json").write_text(json.dumps(document))
    return folder


def only_mask(root: Path) -> np.ndarray:
    (path,) = root.glob("*/masks/*.png")
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


REGION = np.zeros((H, W), np.uint8)
REGION[3:9, 4:11] = 1
REGION[5:7, 6:8] = 0  # a hole
REGION[20, 31] = 1  # a lone pixel


@pytest.mark.parametrize("code", [rle, compressed], ids=["counts", "string"])
def test_both_kinds_of_rle_keep_holes_and_lone_pixels(tmp_path: Path, code: Callable[..., Any]) -> None:
    result = import_dataset(coco(tmp_path / "src", code(REGION)), tmp_path / "out")
    assert (result.format, result.classes, result.frames) == ("coco", ("background", "cat", "dog"), 1)
    np.testing.assert_array_equal(only_mask(tmp_path / "out"), REGION)


def test_every_part_of_a_polygon_counts_and_later_annotations_cover_earlier_ones(tmp_path: Path) -> None:
    source = coco(tmp_path / "src", [box(1, 1, 5, 4), box(10, 2, 20, 8)], [box(4, 3, 12, 6)])
    result = import_dataset(source, tmp_path / "out")
    expected = np.zeros((H, W), np.uint8)
    expected[1:4, 1:5] = expected[2:8, 10:20] = 1
    expected[3:6, 4:12] = 2
    np.testing.assert_array_equal(only_mask(tmp_path / "out"), expected)
    assert result.losses == ("shapes that lie over others hide what is below: 1",)
    assert ImportResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


@given(st.integers(0, W - 1), st.integers(0, H - 1), st.integers(1, W), st.integers(1, H))
def test_any_region_survives_both_rles(x: int, y: int, w: int, h: int) -> None:
    from edgeseg.data.formats._coco import regions

    mask = np.zeros((H, W), np.uint8)
    mask[y : y + h, x : x + w] = 1
    for code in (rle, compressed):
        (found,) = regions(Path("x"), "a.png", H, W, msgspec.Raw(json.dumps(code(mask)).encode()))
        whole = np.zeros((H, W), np.uint8)
        whole[found.window] = found.mask
        np.testing.assert_array_equal(whole, mask)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 1, 4, 4]], r"a polygon of a.png has 4 numbers.\nExpected x, y of at least 3 points"),
        ([[1, 1, 4, 4, 2]], "has 5 numbers"),
        (
            {"size": [4, 4], "counts": [16]},
            r"of a.png cannot be read: its RLE is for \[4, 4\].\nExpected \[height, width\] = \[24, 32\]",
        ),
        ({"size": [H, W]}, "a segmentation of a.png cannot be read"),
        ({"size": [H, W], "counts": ["x"]}, "a segmentation of a.png cannot be read"),
        (["text"], "a segmentation of a.png cannot be read"),
        # These made pycocotools write beyond its memory.
        ([[1, 1, 9223372036854775808, 4, 4, 4]], "a polygon of a.png has a coordinate that is no place in an image"),
        ([[1, 1, 1e308, 4, 4, 4]], "a polygon of a.png has a coordinate that is no place in an image"),
        ([[1, 1, float("nan"), 4, 4, 4]], "a polygon of a.png has a coordinate that is no place in an image"),
        ({"size": [H, W], "counts": [0, 10_000_000]}, "An RLE is for 10000000 pixels, not 768"),
        ({"size": [H, W], "counts": [400, 400]}, "An RLE is for 800 pixels, not 768"),
        ({"size": [H, W], "counts": [-1, H * W + 1]}, "An RLE holds impossible lengths"),
        ({"size": [H, W], "counts": "oooooooooooo"}, "An RLE is not COCO's text"),
        ({"size": [H, W], "counts": "o"}, "An RLE is not COCO's text"),
        ({"size": [H, W], "counts": "\u00e9"}, "An RLE is not COCO's text"),
    ],
)
def test_a_broken_annotation_is_named(tmp_path: Path, segmentation: Any, message: str) -> None:
    with pytest.raises(FileError, match=message):
        import_dataset(coco(tmp_path / "src", segmentation), tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file_name", "message"),
    [("gone.png", "does not exist"), ("../../../etc/hostname", "does not exist"), ("a\0b", "does not exist")],
)
def test_an_image_that_is_not_there_or_outside(tmp_path: Path, file_name: str, message: str) -> None:
    with pytest.raises(FileError, match=message):
        import_dataset(coco(tmp_path / "src", file_name=file_name), tmp_path / "out")


def test_images_in_the_only_folder_beside_the_labels(tmp_path: Path, edgeseg: Edgeseg) -> None:
    source = coco(tmp_path / "src", [box(1, 1, 5, 4)])
    (source / "photos").mkdir()
    (source / "a.png").rename(source / "photos" / "a.png")
    assert import_dataset(source, tmp_path / "out", strict=True).frames == 1
    (source / "more").mkdir()
    (source / "more" / "other.jpg").write_bytes(b"")
    ran = edgeseg("data", "import", source, "--out", tmp_path / "other")
    assert ran.code == 2 and "does not exist.\nExpected the images where the labels say" in ran.err


def test_what_cannot_be_imported_is_left_out_and_the_exit_says_so(tmp_path: Path, edgeseg: Edgeseg) -> None:
    source = coco(tmp_path / "src", [box(1, 1, 5, 4)])
    document = json.loads((source / "labels.json").read_text())
    write_image(source / "größe.png", np.zeros((H, W + 1, 3), np.uint8))
    (source / "cut.png").write_bytes((source / "a.png").read_bytes()[:40])
    document["images"] += [
        {"id": i, "file_name": name, "height": H, "width": W} for i, name in ((2, "größe.png"), (3, "cut.png"))
    ]
    (source / "labels.json").write_text(json.dumps(document))
    ran = edgeseg("data", "import", source, "--out", tmp_path / "out", "--json", "-")
    assert ran.code == 1, ran.err
    found = json.loads(ran.out)
    assert (found["frames"], found["format"]) == (1, "coco")
    assert {Path(p["file"]).name for p in found["problems"]} == {"größe.png", "cut.png"}
    assert "is 33x24, its labels are for 32x24" in ran.err and "cut.png cannot be decoded" in ran.err
    ran = edgeseg("data", "import", source, "--out", tmp_path / "strict", "--strict")
    assert ran.code == 2 and not (tmp_path / "strict").exists()


def folders(root: Path, masks: dict[str, np.ndarray], images: str = "images", labels: str = "masks") -> Path:
    for name, mask in masks.items():
        write_image(root / images / f"{name.split('_mask')[0]}.jpg", np.full((*mask.shape[:2], 3), 80, np.uint8))
        write_image(root / labels / f"{name}.png", mask)
    return root


def test_masks_of_ids_with_a_suffix_are_divided_in_order(tmp_path: Path) -> None:
    ids = np.tile(np.arange(3, dtype=np.uint8), (H, 8))
    source = folders(tmp_path / "src", {f"{i:02}_mask": ids for i in range(10)}, labels="labels")
    result = import_dataset(source, tmp_path / "out")
    assert result.splits == {"train": 8, "val": 1, "test": 1} and result.classes == ("class0", "class1", "class2")
    assert [p.stem for p in Dataset.open(tmp_path / "out", "val").images] == ["08"]
    np.testing.assert_array_equal(Dataset.open(tmp_path / "out", "train")[0][1], ids)


def test_zero_and_255_are_background_and_object(tmp_path: Path) -> None:
    mask = np.zeros((H, W), np.uint8)
    mask[4:9] = 255
    import_dataset(folders(tmp_path / "src", {"a": mask}), tmp_path / "out")
    np.testing.assert_array_equal(only_mask(tmp_path / "out"), mask // 255)


def test_masks_in_color_by_classes_txt_or_as_they_are_found(tmp_path: Path) -> None:
    colors = np.array([(128, 64, 128), (0, 0, 142), (7, 7, 8)], np.uint8)
    ids = np.arange(H * W).reshape(H, W) % 3
    source = folders(tmp_path / "src", {"a": colors[ids][..., ::-1]})
    result = import_dataset(source, tmp_path / "found")
    order = [result.classes.index(f"color_{r:02x}{g:02x}{b:02x}") for r, g, b in colors.tolist()]
    np.testing.assert_array_equal(only_mask(tmp_path / "found"), np.array(order, np.uint8)[ids])
    (source / "classes.txt").write_text("# id name r g b\n0 road 128 64 128\n1 car 0 0 142\n")
    with pytest.raises(FileError, match=r"has the color 7 7 8.\nGive it a class: a line in classes.txt"):
        import_dataset(source, tmp_path / "named", strict=True)


def test_too_many_colors_are_no_masks(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)
    with pytest.raises(FileError, match=r"more than 64 colors.\nA mask has one color for each class. Were the masks"):
        import_dataset(folders(tmp_path / "src", {"a": noise}), tmp_path / "out")


def test_a_source_of_no_format_or_two(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match=r"is in no format that edgeseg knows.\nSay which: --format camvid or"):
        import_dataset(tmp_path / "empty", tmp_path / "out")
    both = folders(coco(tmp_path / "src", [box(1, 1, 5, 4)]), {"a": np.zeros((H, W), np.uint8)})
    with pytest.raises(FileError, match="looks like coco and masks"):
        import_dataset(both, tmp_path / "out")
    assert import_dataset(both, tmp_path / "out", "coco").format == "coco"
    with pytest.raises(OptionError, match="Unknown format 'coko'"):
        import_dataset(both, tmp_path / "other", "coko")
    with pytest.raises(FileError, match="do not exist"):
        formats.detect(tmp_path / "nowhere")


NOT_COCO = {
    "": "is empty",
    "{": r"labels.json cannot be read: .*\nExport it again",
    "[]": r"is not COCO JSON.\nExpected a file with images, annotations and categories",
    "[" * 50_000: "cannot be read",
    '{"images": 3, "categories": []}': "cannot be read: Expected `array`, got `int`",
    '{"images": [], "categories": [{"id": 1}]}': "cannot be read: Object missing required field `name`",
}


@pytest.mark.parametrize(("text", "message"), NOT_COCO.items(), ids=[text[:40] for text in NOT_COCO])
def test_json_that_is_not_coco(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(FileError, match=message):
        import_dataset(tmp_path / "labels.json", tmp_path / "out", "coco")
    assert not (tmp_path / "out").exists() and set(SPLITS) == {"train", "val", "test"}
