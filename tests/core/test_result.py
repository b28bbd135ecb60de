"""Result: everything in the frame's geometry, and exact."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import FileError, MissingPackage
from edgeseg.fit import OUTSIDE
from edgeseg.geometry import rle
from edgeseg.images import read_image, read_mask, write_image
from edgeseg.result import Frame, Result
from edgeseg.runtime import open_segmenter
from edgeseg.spec import FITS, Spec

Run = Callable[..., Any]
CLASSES = ("road", "tree", "sky", "car")


def made(seed: int, fit: str = "stretch", height: int = 50, width: int = 70) -> Result:
    """A frame of another size than the class map, which has blobs, holes and lone pixels."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 4, (6, 8)).astype(np.uint8)
    classmap = cv2.resize(coarse, (48, 32), interpolation=cv2.INTER_NEAREST)
    classmap[random.random((32, 48)) < 0.05] = 3
    frame = Frame(random.integers(0, 256, (height, width, 3)).astype(np.uint8))
    return Result(frame, classmap, {"infer": 0.002, "mask": 0.001}, None, Spec(32, 48, CLASSES, fit=fit))


@given(st.integers(0, 1000), st.sampled_from(FITS))
def test_polygons_enclose_exactly_their_pixels(seed: int, fit: str) -> None:
    """Even-odd filling at pixel centers gives the class map back; areas are those of the pieces."""
    result = made(seed, fit)
    classmap = result.at_frame_size()
    assert classmap.shape == (50, 70)
    drawn = np.full_like(classmap, OUTSIDE)
    y, x = np.mgrid[:50, :70] + 0.5
    for polygon in result.polygons():
        inside = np.zeros(classmap.shape, bool)
        for ring in (polygon.exterior, *polygon.holes):
            for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, 0)):
                if x0 == x1:  # a vertical edge: pixels to its right are toggled
                    inside ^= (x > x0) & (y > min(y0, y1)) & (y < max(y0, y1))
        assert inside.sum() == polygon.area and (drawn[inside] == OUTSIDE).all()
        assert polygon.name == CLASSES[polygon.class_id]
        drawn[inside] = polygon.class_id
    assert np.array_equal(drawn, classmap)


def test_small_pieces_are_left_out_if_asked() -> None:
    result = made(1)
    assert min(p.area for p in result.polygons(20)) >= 20 and len(result.polygons(20)) < len(result.polygons())


@given(st.integers(0, 1000), st.sampled_from(FITS))
def test_json_and_coco_hold_the_class_map(seed: int, fit: str) -> None:
    result = made(seed, fit)
    classmap, document = result.at_frame_size(), json.loads(result.to_json())
    assert document["size"] == [70, 50] and document["ms"] == {"infer": 2.0, "mask": 1.0}
    annotations = result.to_coco(image_id=7)
    assert [a["category_id"] for a in annotations] == [c["id"] for c in document["classes"]]
    for one, annotation in zip(document["classes"], annotations):
        region = rle.coco_region(rle.from_coco_text(one["rle"]["counts"]), 50, 70)
        mask = np.zeros((50, 70), bool)
        mask[region.window] = region.mask
        assert np.array_equal(mask, classmap == one["id"])
        assert annotation["area"] == mask.sum() and annotation["image_id"] == 7
        left, top, width, height = annotation["bbox"]
        assert mask[top : top + height, left : left + width].sum() == mask.sum()
    assert sum(result.areas().values()) == pytest.approx(1)


def test_pycocotools_reads_the_masks() -> None:
    coder = pytest.importorskip("pycocotools.mask")
    result = made(3)
    for annotation in result.to_coco():
        decoded = coder.decode(annotation["segmentation"])
        assert np.array_equal(decoded == 1, result.at_frame_size() == annotation["category_id"])
        assert coder.area(annotation["segmentation"]) == annotation["area"]


def test_files_by_their_suffix(tmp_path: Path) -> None:
    result = made(2)
    assert np.array_equal(read_mask(result.save(tmp_path / "a.png")), result.at_frame_size())
    assert read_image(result.save(str(tmp_path / "a.jpg"))).shape == (50, 70, 3)
    assert json.loads(result.save(tmp_path / "a.json").read_text())["kind"] == "result"
    with pytest.raises(FileError, match=r"are not written as .gif\.\nExpected .png"):
        result.save(tmp_path / "a.gif")


def test_the_repr_is_short() -> None:
    text = repr(made(0))
    assert text.startswith("Result(70x50: ") and text.endswith("3.0 ms)") and len(text) < 100
    assert repr(Result(Frame(np.zeros((4, 5, 3), np.uint8)), np.zeros((4, 5), np.uint8), {})) == "Result(5x4, 0.0 ms)"


def test_supervision_or_what_to_install() -> None:
    if importlib.util.find_spec("supervision"):
        detections = made(0).to_supervision()
        assert detections.mask.shape[1:] == (50, 70) and set(detections.data["class_name"]) <= set(CLASSES)
    else:
        with pytest.raises(MissingPackage, match=r"pip install 'edgeseg\[supervision\]'"):
            made(0).to_supervision()


def test_a_segmenter_takes_what_people_have(bundle_of: Callable[[str, str], Path], tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    image = tiny.frames(1)[0]
    write_image(tmp_path / "a.png", image)
    with open_segmenter(bundle_of("onnxruntime-cpu", "fp32")) as segmenter:
        expected = segmenter(image)
        many = segmenter([image, tmp_path / "a.png", str(tmp_path / "a.png"), pil.open(tmp_path / "a.png")])
        assert all(np.array_equal(one.classmap, expected.classmap) for one in many)
        assert many[1].frame.source == "a"
        turned = pil.open(tmp_path / "a.png")
        turned.getexif()[0x0112] = 3
        assert np.array_equal(segmenter(turned).frame.image, image[::-1, ::-1])
        with pytest.raises(FileError, match="does not exist"):
            segmenter(tmp_path / "none.png")
        with pytest.raises(ValueError, match=r"expected \[H, W, 3\] uint8 BGR"):
            segmenter(image[..., 0])


def test_predict(bundle_of: Callable[[str, str], Path], tmp_path: Path, edgeseg: Run) -> None:
    for folder in ("a", "b"):
        write_image(tmp_path / folder / "x.png", tiny.frames(1, 2, 120, 90)[0])
    bundle = bundle_of("onnxruntime-cpu", "fp32")
    ran = edgeseg("predict", bundle, tmp_path / "a", tmp_path / "b" / "x.png", "--save", tmp_path / "out")
    assert ran.code == 0 and "90x120" in ran.out and "%" in ran.out, ran.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["b-x.jpg", "b-x.png", "x.jpg", "x.png"]
    assert read_mask(tmp_path / "out/x.png").shape == (120, 90)
    ran = edgeseg("predict", bundle, tmp_path / "none.png", tmp_path / "a/x.png", "--json", "-")
    document = json.loads(ran.out)
    assert ran.code == 2 and "none.png does not exist" in ran.err
    assert document["failed"] == 1 and [row["file"] for row in document["images"]] == [str(tmp_path / "a/x.png")]


def test_a_class_map_with_pixels_that_were_not_seen_is_a_sound_png() -> None:
    """Every index has a color, which the PNG specification asks for."""
    import cv2

    from edgeseg.images import palette_png

    ids = np.array([[0, 1, 255], [1, 0, 255]], np.uint8)
    data = palette_png(ids, [(1, 2, 3), (4, 5, 6)])
    assert data[33:41] == (768).to_bytes(4, "big") + b"PLTE"
    colors = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert colors[0].tolist() == [[3, 2, 1], [6, 5, 4], [0, 0, 0]]
