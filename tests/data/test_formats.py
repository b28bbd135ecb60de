"""Every format: what its tool writes is read pixel for pixel, and what edgeseg writes comes back unchanged."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import label_files as files
import numpy as np
import pytest
from label_files import H, W, box, dump, only, painted, picture

from edgeseg.data import formats
from edgeseg.data.dataset import Dataset
from edgeseg.data.exporting import export_dataset
from edgeseg.data.importing import import_dataset
from edgeseg.errors import FileError, OptionError
from edgeseg.geometry import rle
from edgeseg.images import palette_png, write_image

pytest.importorskip("pycocotools", reason="needs edgeseg[data]")
pytest.importorskip("yaml", reason="needs edgeseg[data]")
Edgeseg = Callable[..., Any]
STREET = ("road", "sidewalk", "person", "car")
NAMED = ("background", "a b", "car", "Größe")
POINTS = "points"
STATED = 'source = "Vans"\nlicense = "Internal"\n'


def both(tmp_path: Path, source: Path, **more: Any) -> tuple[np.ndarray, Any]:
    result = import_dataset(source, tmp_path / "out", strict=True, **more)
    return only(tmp_path / "out"), result


def objects_of(tmp_path: Path) -> np.ndarray:
    return only(tmp_path / "out", "instances")


@pytest.mark.parametrize("names", [STREET, NAMED], ids=["filled", "background"])
@pytest.mark.parametrize("name", formats.writable())
def test_what_is_written_comes_back(tmp_path: Path, name: str, names: tuple[str, ...]) -> None:
    if name == "cityscapes" and names == NAMED:
        with pytest.raises(FileError, match=r"has no class background, a b, Größe.\nIt has: road, sidewalk"):
            export_dataset(files.dataset(tmp_path / "set", names), name, tmp_path / "labels")
        assert not (tmp_path / "labels").exists()
        return
    source = files.dataset(tmp_path / "set", names)
    (source / "datasheet.toml").write_text(STATED)
    result = export_dataset(source, name, tmp_path / "labels")
    assert (result.frames, result.splits) == (5, {"train": 3, "val": 1, "test": 1})
    back = import_dataset(tmp_path / "labels", tmp_path / "back", strict=True)
    assert back.format == name and set(names) <= set(back.classes)
    assert back.datasheet and (tmp_path / "back" / "datasheet.toml").read_text() == STATED
    kind = formats.get(name).OBJECTS
    classes, objects = files.difference(source, tmp_path / "back", every_object=kind == formats.KEPT)
    assert classes == 0
    assert objects == 0 or kind == formats.NONE
    told = " ".join(result.losses)
    assert ("not told apart" in told) == (kind == formats.NONE) and ("is an object" in told) == (kind == formats.SHAPES)


@pytest.mark.parametrize("name", [n for n in formats.writable() if n != "cityscapes"])
def test_a_set_without_objects_has_none_afterwards_where_the_format_can_say_so(tmp_path: Path, name: str) -> None:
    source = files.dataset(tmp_path / "set", ("background", "x", "y"), objects=False, seed=3)
    export_dataset(source, name, tmp_path / "labels")
    back = import_dataset(tmp_path / "labels", tmp_path / "back", strict=True)
    assert files.difference(source, tmp_path / "back", every_object=False) == (0, 0)
    assert (back.instances == 0) == (formats.get(name).OBJECTS != formats.SHAPES)


def test_a_format_that_cannot_be_written_names_those_that_can(tmp_path: Path, edgeseg: Edgeseg) -> None:
    source = files.dataset(tmp_path / "set", NAMED)
    ran = edgeseg("data", "export", source, "--format", "via3", "--out", tmp_path / "out")
    assert ran.code == 2 and "cannot be written as via3" in ran.err and "coco, coco_panoptic, cvat" in ran.err
    with pytest.raises(OptionError, match="Unknown format 'coko'"):
        export_dataset(source, "coko", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    with pytest.raises(FileError, match="exists and is not empty"):
        export_dataset(source, "coco", tmp_path / "full")
    ran = edgeseg("data", "export", source, "--format", "coco", "--out", tmp_path / "out", "--json", "-")
    assert ran.code == 0 and json.loads(ran.out)["frames"] == 5


def test_an_export_of_a_broken_dataset_leaves_nothing(tmp_path: Path) -> None:
    source = files.dataset(tmp_path / "set", NAMED)
    (source / "test/masks/test 0é.png").write_bytes(b"")
    with pytest.raises(FileError, match="is empty"):
        export_dataset(source, "coco", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set"]


# CVAT

POLYGON = '<polygon label="{}" points="{}" z_order="{}" {}/>'


def polygon(label: str, corners: list[list[int]], z: int = 0, more: str = "") -> str:
    return POLYGON.format(label, ";".join(f"{x},{y}" for x, y in corners), z, more)


def test_cvat_draws_by_z_order_and_joins_groups(tmp_path: Path) -> None:
    shapes = (
        polygon("dog", box(4, 2, 10, 8), 2),
        polygon("car", box(1, 1, 6, 5), 1, 'group_id="3"'),
        polygon("car", box(20, 1, 26, 5), 1, 'group_id="3"'),
        '<box label="car" xtl="2" ytl="12" xbr="8" ybr="16" z_order="0"/>',
        '<polyline label="car" points="1,1;2,2"/>',
    )
    mask, result = both(tmp_path, files.cvat(tmp_path / "src", *shapes))
    np.testing.assert_array_equal(
        mask, painted((2, 12, 8, 16, 1), (1, 1, 6, 5, 1), (20, 1, 26, 5, 1), (4, 2, 10, 8, 2))
    )
    found = objects_of(tmp_path)
    assert found[1, 1] == found[1, 21] != found[12, 3] and len(np.unique(found)) == 4
    assert result.classes == ("background", "car", "dog") and Dataset.open(tmp_path / "out", "train").classes.palette[
        1
    ] == (10, 11, 12)
    assert result.losses == (
        "shapes of type polyline are left out: 1", "shapes that lie over others hide what is below: 1"
    )  # fmt: skip


def test_cvat_masks_lie_where_they_say_and_ellipses_are_round(tmp_path: Path) -> None:
    shapes = (
        '<mask label="car" rle="1, 2, 3" left="5" top="2" width="3" height="2" z_order="0"/>',
        '<ellipse label="dog" cx="16" cy="12" rx="6" ry="3" rotation="90"/>',
    )
    mask, _ = both(tmp_path, files.cvat(tmp_path / "src", *shapes))
    expected = np.zeros((H, W), np.uint8)
    expected[2, 6:8] = 1
    y, x = np.mgrid[:H, :W] + 0.5
    expected[((x - 16) / 3) ** 2 + ((y - 12) / 6) ** 2 <= 1] = 2
    np.testing.assert_array_equal(mask, expected)


# LabelMe


def test_labelme_shapes_groups_and_special_names(tmp_path: Path) -> None:
    dot = np.zeros((2, 3), np.uint8)
    dot[1, 1:] = 255
    png = base64.b64encode(cv2.imencode(".png", dot)[1].tobytes()).decode()
    shapes = (
        {"label": "car", "points": [[1, 1], [4.7, 1], [4.7, 3.2], [1, 3.2]], "shape_type": "polygon", "group_id": 1},
        {"label": "car", "points": [[10, 1], [12, 3]], "shape_type": "rectangle", "group_id": 1},
        {"label": "dog", "points": [[20, 10], [22, 10]], "shape_type": "circle", "group_id": None},
        {"label": "dog", "points": [[5, 6], [7, 7]], "shape_type": "mask", "mask": png, "group_id": None},
        {"label": "_background_", "points": [[2, 2], [3, 2], [3, 2.5]], "shape_type": "polygon"},
        {"label": "__ignore__", "points": [[28, 20], [31, 23]], "shape_type": "rectangle"},
        {"label": "car", "points": [[1, 1]], "shape_type": "point"},
    )
    mask, result = both(tmp_path, files.labelme(tmp_path / "src", *shapes))
    expected = painted((1, 1, 5, 4, 1), (10, 1, 13, 4, 1), (28, 20, 32, 24, 255), (2, 2, 4, 3, 0))
    y, x = np.mgrid[:H, :W] + 0.5
    expected[(x - 20) ** 2 + (y - 10) ** 2 <= 4] = 2
    expected[7, 6:8] = 2
    np.testing.assert_array_equal(mask, expected)
    found = objects_of(tmp_path)
    assert found[1, 1] == found[1, 10] and found[21, 29] == 0
    assert "shapes of type point are left out: 1" in result.losses


def test_labelme_with_the_image_inside(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)
    text = base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()
    shape = {"label": "car", "points": [[0, 0], [3, 3]], "shape_type": "rectangle"}
    mask, _ = both(tmp_path, files.labelme(tmp_path / "src", shape, image=text))
    np.testing.assert_array_equal(mask, painted((0, 0, 4, 4, 1)))
    np.testing.assert_array_equal(Dataset.open(tmp_path / "out", "train")[0][0], image)
    assert [p.name for p in (tmp_path / "out/train").iterdir() if p.name[0] == "."] == []


def test_labelme_polygons_are_drawn_nearly_as_pil_draws_them(tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    from PIL import ImageDraw

    from edgeseg.geometry.regions import with_outline

    rng, differing, total = np.random.default_rng(0), 0, 0
    for _ in range(50):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        ring = 50 + rng.uniform(20, 45, (9, 1)) * np.stack((np.cos(angles), np.sin(angles)), 1)
        image = pil.new("L", (100, 100))
        ImageDraw.Draw(image).polygon([tuple(p) for p in ring], outline=1, fill=1)
        whole = np.zeros((100, 100), bool)
        region = with_outline(ring, 100, 100)
        whole[region.window] = region.mask
        differing, total = differing + int((whole != np.array(image, bool)).sum()), total + int(whole.sum())
    assert differing < 0.03 * total


# VIA


def region2(shape: dict[str, Any], label: object) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": {"kind": label}}


def test_via_2(tmp_path: Path) -> None:
    corners = box(1, 1, 5, 4)
    regions = (
        region2({"name": "polygon", "all_points_x": [x for x, _ in corners], "all_points_y": [y for _, y in corners]},
                "dog"),
        region2({"name": "rect", "x": 3, "y": 2, "width": 4, "height": 3}, {"car": True}),
        region2({"name": "point", "cx": 1, "cy": 1}, "car"),
        region2({"name": "circle", "cx": 20, "cy": 10, "r": 4}, ""),
    )  # fmt: skip
    mask, result = both(tmp_path, files.via2(tmp_path / "src", *regions))
    np.testing.assert_array_equal(mask, painted((1, 1, 5, 4, 2), (3, 2, 7, 5, 1)))
    assert result.format == "via" and result.classes == ("background", "car", "dog")
    assert "shapes without a class are left out: 1" in result.losses
    plain = json.loads((tmp_path / "src/via.json").read_text())["_via_img_metadata"]
    dump(tmp_path / "src/via.json", plain)  # the annotations alone
    result = import_dataset(tmp_path / "src", tmp_path / "plain")
    np.testing.assert_array_equal(only(tmp_path / "plain"), mask)


def test_via_3(tmp_path: Path) -> None:
    picture(tmp_path / "src/a.png")
    flat = [v for pair in box(1, 1, 5, 4) for v in pair]
    dump(tmp_path / "src/project.json", {
        "project": {"pid": "1"}, "config": {},
        "attribute": {"1": {"aname": "label", "options": {"0": "car", "1": "dog"}}},
        "file": {"1": {"fid": "1", "fname": "a.png"}}, "view": {"1": {"fid_list": ["1"]}},
        "metadata": {"m": {"vid": "1", "z": [], "xy": [7, *flat], "av": {"1": "1"}},
                     "n": {"vid": "1", "z": [], "xy": [2, 10, 2, 4, 3], "av": {"1": "0"}}},
    })  # fmt: skip
    mask, result = both(tmp_path, tmp_path / "src")
    np.testing.assert_array_equal(mask, painted((1, 1, 5, 4, 2), (10, 2, 14, 5, 1)))
    assert result.format == "via3" and result.classes == ("background", "car", "dog")


# Supervisely, Label Studio


def test_supervisely_bitmaps_holes_and_rectangles(tmp_path: Path) -> None:
    png = cv2.imencode(".png", np.dstack([np.full((2, 2, 3), 7, np.uint8), np.array([[255, 0], [255, 255]], np.uint8)]))
    data = base64.b64encode(zlib.compress(png[1].tobytes())).decode()
    objects = (
        {"classTitle": "car", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [31, 4]}, "tags": [{}]},
        {"classTitle": "dog", "geometryType": "polygon",
         POINTS: {"exterior": box(2, 2, 9, 9), "interior": [box(4, 4, 5, 5)]}},
        {"classTitle": "car", "geometryType": "rectangle", POINTS: {"exterior": [[12, 2], [14, 3]], "interior": []}},
        {"classTitle": "car", "geometryType": "point", POINTS: {"exterior": [[1, 1]], "interior": []}},
    )  # fmt: skip
    mask, result = both(tmp_path, files.supervisely(tmp_path / "src", *objects))
    expected = painted((2, 2, 10, 10, 2), (4, 4, 6, 6, 0), (12, 2, 15, 4, 1))
    expected[4:6, 31] = 1
    np.testing.assert_array_equal(mask, expected)
    assert result.losses == (
        "objects of type point are left out: 1", "objects with tags, which are left out: 1",
        "shapes that reach out of the image are cut: 1",
    )  # fmt: skip


def result(kind: str, label: str, **value: Any) -> dict[str, Any]:
    return {"type": kind, "from_name": "l", "to_name": "image", "original_width": W, "original_height": H,
            "value": {kind: [label], **value}}  # fmt: skip


def test_label_studio_takes_the_first_annotation_that_was_not_canceled(tmp_path: Path) -> None:
    brush = painted((20, 10, 26, 14, 1)) > 0
    corners = [[100 * x / W, 100 * y / H] for x, y in box(1, 1, 5, 4)]
    chosen = [
        result("polygonlabels", "car", points=corners, closed=True),
        result(
            "rectanglelabels", "dog", x=100 * 8 / W, y=100 * 2 / H, width=100 * 3 / W, height=100 * 4 / H, rotation=0
        ),
        result("rectanglelabels", "dog", x=50, y=100 * 2 / H, width=100 * 3 / W, height=100 * 4 / H, rotation=90),
        result("brushlabels", "dog", format="rle", rle=rle.label_studio(brush)),
        result("keypointlabels", "car", x=1, y=1, width=1),
    ]
    other = [result("rectanglelabels", "bird", x=0, y=0, width=100, height=100)]
    source = files.label_studio(
        tmp_path / "src", {"was_cancelled": True, "result": other}, {"result": chosen}, {"result": other}
    )
    mask, found = both(tmp_path, source)
    expected = painted((1, 1, 5, 4, 1), (8, 2, 11, 6, 2), (12, 2, 16, 5, 2), (20, 10, 26, 14, 2))
    np.testing.assert_array_equal(mask, expected)
    assert found.classes == ("background", "car", "dog")
    assert found.losses == (
        "frames with several annotations, of which the first counts: 1",
        "results of type keypointlabels without an area or a label are left out: 1",
    )


def test_label_studio_literal_runs_are_read() -> None:
    """Its own coder stores short stretches as they are: a 0 bit, then one byte for each value."""
    values = np.array([[0, 255, 0], [255, 255, 0]], np.uint8).repeat(4)
    bits = f"{values.size:032b}00111" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    bits += "0" + "10" + f"{values.size - 1:08b}" + "".join(f"{v:08b}" for v in values)
    bits += "0" * (-len(bits) % 8)
    code = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    np.testing.assert_array_equal(rle.from_label_studio(code, 2, 3), [[0, 1, 0], [1, 1, 0]])


# YOLO


def test_yolo_polygons_boxes_and_images_without_labels(tmp_path: Path) -> None:
    line = "1 " + " ".join(f"{x / W:.6f} {y / H:.6f}" for x, y in box(1, 1, 5, 4))
    source = files.yolo(tmp_path / "src", f"{line}\n0 0.5 0.5 0.1 0.1\n", "names:\n  0: car\n  1: dog\n")
    picture(source / "images/val/b.png")
    (source / "labels/val").mkdir()
    result = import_dataset(source, tmp_path / "out", strict=True)
    np.testing.assert_array_equal(Dataset.open(tmp_path / "out", "train")[0][1], painted((1, 1, 5, 4, 2)))
    assert not Dataset.open(tmp_path / "out", "val")[0][1].any()
    assert result.losses == ("boxes without a polygon are left out: 1",)


# Masks in several forms


def test_palette_masks_with_and_without_transparency_hold_ids(tmp_path: Path) -> None:
    ids = painted((1, 1, 5, 4, 1), (8, 2, 11, 6, 2))
    plain = palette_png(ids, [(0, 0, 0), (200, 0, 0), (0, 200, 0)])
    at = plain.index(b"IDAT") - 4
    body = b"tRNS" + bytes([0, 255, 128])
    transparent = plain[:at] + (3).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big") + plain[at:]
    for name, data in (("plain", plain), ("transparent", transparent)):
        picture(tmp_path / name / "images/a.png")
        (tmp_path / name / "masks").mkdir()
        (tmp_path / name / "masks/a.png").write_bytes(data)
        import_dataset(tmp_path / name, tmp_path / f"{name}-out")
        np.testing.assert_array_equal(only(tmp_path / f"{name}-out"), ids)


COLORS = np.array([(0, 0, 0), (200, 0, 0), (0, 200, 9)], np.uint8)


@pytest.mark.parametrize(
    "text",
    ["name,r,g,b\nroad,0,0,0\ncar,200,0,0\nvoid,0,200,9\n", "0 0 0 road\n200 0 0 car\n0 200 9 Void\n",
     "# label:color_rgb:parts:actions\nroad:0,0,0::\ncar:200,0,0::\nvoid:0,200,9::\n",
     "0 road 0 0 0\n1 car 200 0 0\n2 void 0 200 9\n"],
    ids=["csv", "txt", "labelmap", "classes"],
)  # fmt: skip
def test_colors_are_named_by_a_file(tmp_path: Path, text: str, edgeseg: Edgeseg) -> None:
    ids = painted((1, 1, 5, 4, 1), (8, 2, 11, 6, 2))
    picture(tmp_path / "src/images/a.png")
    write_image(tmp_path / "src/masks/a.png", COLORS[ids][..., ::-1])
    ran = edgeseg("data", "import", tmp_path / "src", "--out", tmp_path / "found")
    assert ran.code == 0 and "0 200 9  color_00c809" in ran.out and "--colors FILE" in ran.out
    dump(tmp_path / "colors", text)
    result = import_dataset(tmp_path / "src", tmp_path / "out", strict=True, colors=tmp_path / "colors")
    assert result.classes == ("road", "car") and not result.colors
    np.testing.assert_array_equal(only(tmp_path / "out"), np.where(ids == 2, 255, ids))
    with pytest.raises(OptionError, match=r"--colors is not for coco.\nIt is for: masks"):
        import_dataset(
            files.dump(tmp_path / "c.json", {"images": [], "categories": []}),
            tmp_path / "x",
            colors=tmp_path / "colors",
        )


def test_voc_ids_colors_objects_and_outlines(tmp_path: Path) -> None:
    from edgeseg.data.formats.voc import NAMES, colormap

    assert colormap(3) == [(0, 0, 0), (128, 0, 0), (0, 128, 0)] and colormap(256)[255] == (224, 224, 192)
    ids = painted((1, 1, 5, 4, 7), (8, 2, 11, 6, 15), (20, 20, 22, 22, 255))
    source = tmp_path / "VOCdevkit/VOC2012"
    picture(source / "JPEGImages/a.jpg")
    for folder, found in (("SegmentationClass", ids), ("SegmentationObject", np.where(ids == 15, 1, ids // 200 * 255))):
        (source / folder).mkdir()
        (source / folder / "a.png").write_bytes(palette_png(found.astype(np.uint8), colormap(256)))
    dump(source / "ImageSets/Segmentation/val.txt", "a\n")
    result = import_dataset(tmp_path, tmp_path / "out", strict=True)  # two folders below
    assert (result.format, result.splits["val"], result.classes) == ("voc", 1, tuple(NAMES))
    np.testing.assert_array_equal(only(tmp_path / "out"), ids)
    np.testing.assert_array_equal(objects_of(tmp_path) > 0, ids == 15)
    colored = np.array(colormap(256), np.uint8)[ids]
    write_image(source / "SegmentationClass/a.png", colored[..., ::-1])
    import_dataset(source, tmp_path / "colored", strict=True)
    np.testing.assert_array_equal(only(tmp_path / "colored"), ids)


def test_cvat_segmentation_masks_have_their_own_colors(tmp_path: Path) -> None:
    ids = painted((1, 1, 5, 4, 1), (8, 2, 11, 6, 2))
    picture(tmp_path / "src/JPEGImages/a.png")
    dump(
        tmp_path / "src/labelmap.txt",
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:250,50,83::\ndog:1,2,3::\n",
    )
    palette = np.array([(0, 0, 0), (250, 50, 83), (1, 2, 3)], np.uint8)
    write_image(tmp_path / "src/SegmentationClass/a.png", palette[ids][..., ::-1])
    mask, result = both(tmp_path, tmp_path / "src")
    np.testing.assert_array_equal(mask, ids)
    assert (result.format, result.classes) == ("voc", ("background", "car", "dog"))


def test_panoptic_segments_crowds_and_large_ids(tmp_path: Path) -> None:
    picture(tmp_path / "src/images/a.png")
    codes = np.zeros((H, W), np.uint32)
    codes[1:4, 1:5], codes[8:12, 2:9], codes[15:20, 3:8], codes[15:20, 20:25] = 300, 70_000, 9, 5
    rgb = np.stack((codes & 255, codes >> 8 & 255, codes >> 16), -1).astype(np.uint8)
    write_image(tmp_path / "src/panoptic/a.png", rgb[..., ::-1])
    segments = [{"id": 300, "category_id": 3}, {"id": 70_000, "category_id": 3},
                {"id": 9, "category_id": 3, "iscrowd": 1},
                {"id": 5, "category_id": 8}]  # fmt: skip
    dump(tmp_path / "src/panoptic.json", {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 8, "name": "sky", "isthing": 0}, {"id": 3, "name": "car", "isthing": 1}],
    })  # fmt: skip
    mask, result = both(tmp_path, tmp_path / "src")
    assert (result.format, result.classes) == ("coco_panoptic", ("background", "car", "sky"))
    np.testing.assert_array_equal(mask, np.select([np.isin(codes, (300, 70_000, 9)), codes == 5], [1, 2]))
    np.testing.assert_array_equal(objects_of(tmp_path), np.select([codes == 300, codes == 70_000], [300, 1]))
    assert result.losses == (
        "crowds count as their class, without objects: 1", "objects with an id above 65535 have a new one: 1"
    )  # fmt: skip


def test_coco_crowds_and_stuff_are_no_objects(tmp_path: Path) -> None:
    picture(tmp_path / "src/a.png")
    flat = [[v for p in box(*at) for v in p] for at in ((1, 1, 5, 4), (8, 2, 11, 6), (20, 1, 25, 4))]
    dump(tmp_path / "src/a.json", {
        "images": [{"id": 1, "file_name": "a.png", "height": H, "width": W}],
        "categories": [{"id": 1, "name": "car", "supercategory": "car"}, {"id": 2, "name": "sky", "isthing": 0}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [flat[0]], "keypoints": [1, 2, 2]},
            {"id": 2, "image_id": 1, "category_id": 1, "segmentation": [flat[1]], "iscrowd": True},
            {"id": 3, "image_id": 1, "category_id": 2, "segmentation": [flat[2]]},
            {"id": 4, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]},
            {"id": 5, "image_id": 77, "category_id": 1, "segmentation": [flat[0]]},
        ],
    })  # fmt: skip
    mask, result = both(tmp_path, tmp_path / "src")
    np.testing.assert_array_equal(mask, painted((1, 1, 5, 4, 1), (8, 2, 11, 6, 1), (20, 1, 25, 4, 2)))
    np.testing.assert_array_equal(objects_of(tmp_path) > 0, painted((1, 1, 5, 4, 1)) > 0)
    assert result.losses == (
        "keypoints are left out: 1", "annotations of images that the file does not list: 1",
        "annotations without a segmentation (only a box) are left out: 1",
        "crowds count as their class, without objects: 1",
    )  # fmt: skip


def test_cityscapes_ids_and_polygons(tmp_path: Path) -> None:
    from edgeseg.data.formats.cityscapes import IGNORE, NAMES

    picture(tmp_path / "leftImg8bit/val/ulm/ulm_0_leftImg8bit.png")
    picture(tmp_path / "leftImg8bit/train/ulm/ulm_1_leftImg8bit.png")
    ids = painted((0, 0, W, H, 7), (1, 1, 5, 4, 26), (8, 2, 11, 6, 9))  # road, a car, parking
    write_image(tmp_path / "gtFine/val/ulm/ulm_0_gtFine_labelIds.png", ids)
    objects = np.where(ids == 26, np.uint16(26001), ids)
    write_image(tmp_path / "gtFine/val/ulm/ulm_0_gtFine_instanceIds.png", objects)  # type: ignore[arg-type]
    shapes = [("road", (0, 0, W, H)), ("car", (1, 1, 5, 4)), ("parking", (8, 2, 11, 6)), ("cargroup", (20, 2, 25, 6))]
    dump(tmp_path / "gtFine/train/ulm/ulm_1_gtFine_polygons.json", {
        "imgHeight": H, "imgWidth": W, "objects": [{"label": n, "polygon": box(*at)} for n, at in shapes],
    })  # fmt: skip
    result = import_dataset(tmp_path, tmp_path / "out", strict=True)
    assert (result.format, result.classes, result.splits) == ("cityscapes", NAMES, {"train": 1, "val": 1, "test": 0})
    val, train = (Dataset.open(tmp_path / "out", split) for split in ("val", "train"))
    np.testing.assert_array_equal(val.mask(0), np.select([ids == 26, ids == 9], [13, IGNORE]))
    np.testing.assert_array_equal(val.instances(0), np.where(ids == 26, np.uint16(26001), 0))
    drawn = painted((1, 1, 6, 5, 13), (8, 2, 12, 7, IGNORE), (20, 2, 26, 7, 13))  # with their outlines
    np.testing.assert_array_equal(train.mask(0), drawn)
    np.testing.assert_array_equal(train.instances(0), painted((1, 1, 6, 5, 1)))
    assert any("outside of the 19 classes" in loss for loss in result.losses)


def test_camvid_layouts(tmp_path: Path) -> None:
    ids = painted((1, 1, 5, 4, 1), (8, 2, 11, 6, 2))
    for split in ("train", "val"):
        picture(tmp_path / split / f"{split}1.png")
        write_image(tmp_path / f"{split}_labels" / f"{split}1_L.png", COLORS[ids][..., ::-1])
    dump(tmp_path / "label_colors.txt", "0 0 0\tSky\n200 0 0\t\tCar\n0 200 9\tVoid\n")
    result = import_dataset(tmp_path, tmp_path / "out", strict=True)
    assert (result.format, result.classes, result.splits) == (
        "camvid",
        ("Sky", "Car"),
        {"train": 1, "val": 1, "test": 0},
    )
    np.testing.assert_array_equal(Dataset.open(tmp_path / "out", "val").mask(0), np.where(ids == 2, 255, ids))


def test_file_names_that_end_in_many_ways(tmp_path: Path) -> None:
    from edgeseg.data.formats.masks import SUFFIXES

    for i, ending in enumerate(SUFFIXES):
        picture(tmp_path / f"images/{i}.jpg")
        write_image(tmp_path / f"masks/{i}{ending}.png", painted((1, 1, 5, 4, 1)))
    assert import_dataset(tmp_path, tmp_path / "out", strict=True).frames == len(SUFFIXES)


def test_masks_beside_their_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"train/{name}.jpg")
        write_image(tmp_path / f"train/{name}_mask.png", painted((1, 1, 5, 4, 1)))
    result = import_dataset(tmp_path, tmp_path / "out", strict=True)
    assert (result.format, result.splits) == ("masks", {"train": 2, "val": 0, "test": 0})
    np.testing.assert_array_equal(Dataset.open(tmp_path / "out", "train").mask(1), painted((1, 1, 5, 4, 1)))


def test_images_and_masks_that_stand_alone_are_counted(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / f"images/{name}.jpg")
    for name in ("c", "d"):
        write_image(tmp_path / f"masks/{name}.png", painted((1, 1, 5, 4, 1)))
    result = import_dataset(tmp_path, tmp_path / "out")
    assert result.losses == ("images without a mask are left out: 2", "masks without an image are left out: 1")


def test_tracks_of_a_video_say_what_to_export(tmp_path: Path) -> None:
    dump(
        tmp_path / "a.xml",
        '<annotations><meta/><track label="car"><polygon points="1,1;2,2;3,1"/></track></annotations>',
    )
    with pytest.raises(FileError, match=r"holds tracks of a video.\nExport the task as"):
        import_dataset(tmp_path / "a.xml", tmp_path / "out")


def test_polygons_are_drawn_as_pycocotools_draws_them() -> None:
    from pycocotools import mask as coder

    from edgeseg.data.coco_polygons import as_coco

    rng, differing = np.random.default_rng(0), 0
    for i in range(600):
        ring = rng.uniform(-30, 130, (int(rng.integers(3, 12)), 2))
        ring = (ring, ring.round(1), ring.round())[i % 3]
        height, width = (int(n) for n in rng.integers(1, 120, 2))
        whole = np.zeros((height, width), bool)
        region = as_coco(ring, height, width)
        whole[region.window] = region.mask
        coded = coder.frPyObjects([ring.ravel().tolist()], height, width)
        differing += int((whole != coder.decode(coded)[..., 0]).sum())
    assert differing == 0


def test_outlines_come_back_whatever_the_region() -> None:
    from edgeseg.data.coco_polygons import as_coco
    from edgeseg.geometry import trace
    from edgeseg.geometry.regions import Region, by_centers

    rng = np.random.default_rng(0)
    for i in range(200):
        height, width = (int(n) for n in rng.integers(1, 20, 2))
        mask = rng.random((height, width)) < (i % 10 + 1) / 10
        if mask.any():
            ring = trace.outline(Region(0, 0, mask)).astype(float)
            for region in (by_centers([ring], height, width), as_coco(ring, height, width)):
                whole = np.zeros_like(mask)
                whole[region.window] = region.mask
                np.testing.assert_array_equal(whole, mask)


@pytest.mark.parametrize("name", ["classes.txt", "class_dict.csv"])
def test_a_list_of_colors_beside_the_masks(tmp_path: Path, name: str) -> None:
    """An index of a palette is an id with classes.txt, and only a color with a list of colors."""
    ids = painted((1, 1, 5, 4, 1), (8, 2, 11, 6, 2))
    for image in ("a", "b"):
        picture(tmp_path / f"images/{image}.png")
    write_image(tmp_path / "masks/a.png", COLORS[ids][..., ::-1])
    order = (0, 1, 2) if name == "classes.txt" else (2, 0, 1)
    stored = np.argsort(order).astype(np.uint8)[ids]
    (tmp_path / "masks/b.png").write_bytes(palette_png(stored, [tuple(COLORS[i].tolist()) for i in order]))
    rows = [("road", COLORS[0]), ("car", COLORS[1]), ("void", COLORS[2])]
    if name == "classes.txt":
        lines = ["# (id 2 = ignore)", *(f"{i} {n} {r} {g} {b}" for i, (n, (r, g, b)) in enumerate(rows))]
    else:
        lines = ["name,r,g,b", *(f"{n},{r},{g},{b}" for n, (r, g, b) in rows)]
    dump(tmp_path / name, "\n".join(lines))
    result = import_dataset(tmp_path, tmp_path / "out", strict=True)
    assert (result.format, result.classes) == ("masks", ("road", "car"))
    for path in (tmp_path / "out").glob("*/masks/*.png"):
        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), np.where(ids == 2, 255, ids))
