"""Labels that are broken, hostile or odd: named one by one, refused before they cost anything, nothing half-written."""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import label_files as files
import mutations
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_files import H, W, box, dump, only, painted, picture
from test_dataset import with_exif

from edgeseg.data import archive, formats
from edgeseg.data.dataset import Dataset
from edgeseg.data.exporting import export_dataset
from edgeseg.data.importing import import_dataset
from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.images import read_image, write_image

pytest.importorskip("pycocotools", reason="needs edgeseg[data]")
pytest.importorskip("yaml", reason="needs edgeseg[data]")
Edgeseg = Callable[..., Any]
CAR = '<polygon label="car" points="1,1;5,1;5,4;1,4" z_order="0"/>'


def left_over(folder: Path, *expected: str) -> list[str]:
    return sorted({p.name for p in folder.iterdir()} - set(expected))


# Archives


def packed(source: Path, target: Path, inside: str = "") -> Path:
    content = sorted(p for p in source.rglob("*") if p.is_file())
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
            for path in content:
                file.write(path, f"{inside}{path.relative_to(source).as_posix()}")
    else:
        with tarfile.open(target, "w:gz" if target.suffix in (".gz", ".tgz") else "w") as file:
            for path in content:
                file.add(path, f"{inside}{path.relative_to(source).as_posix()}")
    return target


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz"])
@pytest.mark.parametrize("inside", ["", "task_1/"])
def test_an_archive_is_read_like_its_folder(tmp_path: Path, name: str, inside: str) -> None:
    source = packed(files.cvat(tmp_path / "src", CAR), tmp_path / name, inside)
    result = import_dataset(source, tmp_path / "out")
    assert (result.format, result.frames) == ("cvat", 1)
    np.testing.assert_array_equal(only(tmp_path / "out"), painted((1, 1, 5, 4, 1)))
    assert left_over(tmp_path, "src", name, "out") == []


def zip_of(path: Path, *entries: tuple[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, data)
    return path


def tar_of(path: Path, name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Path:
    with tarfile.open(path, "w") as file:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, 3 if kind == tarfile.REGTYPE else 0
        file.addfile(info, io.BytesIO(b"abc"))
    return path


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "up": (lambda p: zip_of(p / "a.zip", ("../escaped", b"x")), "'../escaped': it leads out"),
    "up inside": (lambda p: zip_of(p / "a.zip", ("a/../../escaped", b"x")), "it leads out"),
    "backslashes": (lambda p: zip_of(p / "a.zip", ("a\\..\\..\\escaped", b"x")), "it leads out"),
    "absolute": (lambda p: zip_of(p / "a.zip", ("/tmp/escaped", b"x")), "it leads out"),
    "drive": (lambda p: zip_of(p / "a.zip", ("C:/escaped", b"x")), "it leads out"),
    "zip link": (lambda p: zip_of(p / "a.zip", ("link", b"/etc/passwd"), mode=0o120777), "a link or a device"),
    "twice": (lambda p: zip_of(p / "a.zip", ("a", b"1"), ("./a", b"2")), "it is there twice"),
    "tar up": (lambda p: tar_of(p / "a.tar", "../escaped"), "it leads out"),
    "tar link": (lambda p: tar_of(p / "a.tar", "x", tarfile.SYMTYPE, "/etc"), "a link or a device"),
    "hard link": (lambda p: tar_of(p / "a.tar", "x", tarfile.LNKTYPE, "/etc/passwd"), "a link or a device"),
    "device": (lambda p: tar_of(p / "a.tar", "x", tarfile.CHRTYPE), "a link or a device"),
    "no zip": (lambda p: dump(p / "a.zip", "PK nonsense"), "cannot be read"),
    "empty": (lambda p: dump(p / "a.tar.gz", ""), "cannot be read"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_archive_writes_nothing(tmp_path: Path, name: str, edgeseg: Edgeseg) -> None:
    make, message = HOSTILE[name]
    (tmp_path / "in").mkdir()
    source = make(tmp_path / "in")
    ran = edgeseg("data", "import", source, "--out", tmp_path / "work/out")
    assert ran.code == 2 and message in ran.err, ran.err
    assert left_over(tmp_path, "in", "work") == [] and left_over(tmp_path / "work") == []


def test_a_zip_bomb_is_stopped_early(tmp_path: Path) -> None:
    bomb = zip_of(tmp_path / "a.zip", ("zeros.json", bytes(200 << 20)))
    started = time.monotonic()
    with pytest.raises(FileError, match="more than 200 times as large as the archive"):
        import_dataset(bomb, tmp_path / "out")
    assert time.monotonic() - started < 10 and left_over(tmp_path, "a.zip") == []


def test_too_many_or_too_large_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = zip_of(tmp_path / "a.zip", *((f"{i}", b"abc") for i in range(9)))
    monkeypatch.setattr(archive, "MAX_ENTRIES", 8)
    with pytest.raises(FileError, match="more than 8 entries"):
        import_dataset(source, tmp_path / "out")
    monkeypatch.setattr(archive, "MAX_ENTRIES", 9)
    monkeypatch.setattr(archive, "MAX_TOTAL", 20)
    with pytest.raises(FileError, match="it is too large"):
        import_dataset(source, tmp_path / "out")


def test_labels_of_an_archive_cannot_name_files_beside_it(tmp_path: Path) -> None:
    picture(tmp_path / "secret.png")
    document = {"images": [{"id": 1, "file_name": "../../../secret.png", "height": H, "width": W}],
                "categories": [{"id": 1, "name": "car"}]}  # fmt: skip
    with pytest.raises(FileError, match=r"a.zip/.*secret.png does not exist"):
        import_dataset(zip_of(tmp_path / "a.zip", ("l.json", json.dumps(document).encode())), tmp_path / "out")
    assert left_over(tmp_path, "a.zip", "secret.png") == []


# Class maps


def mapped(tmp_path: Path, text: str) -> tuple[tuple[str, ...], np.ndarray]:
    source = files.cvat(tmp_path / "src", CAR, CAR.replace("car", "dog").replace("1,", "11,").replace("5,", "15,"))
    dump(tmp_path / "map.toml", text)
    result = import_dataset(source, tmp_path / "out", class_map=tmp_path / "map.toml")
    return result.classes, only(tmp_path / "out")


BOTH = painted((1, 1, 5, 4, 1), (11, 1, 15, 4, 2))


@pytest.mark.parametrize(
    ("text", "classes", "mask"),
    [
        ('[classes]\npet = ["dog"]\ncar = "car"\n', ("background", "pet", "car"), [0, 2, 1]),
        ('[classes]\nthing = ["dog", "car"]\n', ("background", "thing"), [0, 1, 1]),
        ('ignore = ["dog"]\n[classes]\nrest = "background"\ncar = "car"\n', ("rest", "car"), [0, 1, 255]),
        ('other = "ignore"\n[classes]\ncar = ["car"]\n', ("background", "car"), [0, 1, 255]),
        ('other = "background"\n[classes]\ncar = ["car"]\n', ("background", "car"), [0, 1, 0]),
        ('ignore = ["background"]\n[classes]\na = "car"\nb = "dog"', ("a", "b"), [255, 0, 1]),
    ],
)
def test_classes_are_merged_ordered_and_ignored(
    tmp_path: Path, text: str, classes: tuple[str, ...], mask: list[int]
) -> None:
    names, found = mapped(tmp_path, text)
    assert names == classes
    np.testing.assert_array_equal(found, np.array(mask)[BOTH])
    objects = only(tmp_path / "out", "instances")
    gone = np.isin(found, (255,)) if classes[0] == "rest" else (found == 255) | (BOTH == 0)
    assert not objects[gone].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[classes]\na = ["cat"]\nb = "dog"', r"no class 'cat'.\nDid you mean 'car'\? Known: background, car, dog"),
        ('[classes]\na = "car"', r"has no place for: dog.\nName them, or set other"),
        ('[classes]\na = "car"\nb = ["car", "dog"]', "'car' is named twice"),
        ('[classes]\na = 3\nb = "dog"', "classes.a is 3"),
        ('[classes]\na = "car"\nb = "dog"\nignore = ["dog"]', r"ignore is a class.\nWrite ignore = ... above the line"),
        ('other = "drop"\n[classes]\na = "car"', "other is 'drop'"),
        ('wrong = 1\n[classes]\na = "car"', "unknown key 'wrong'"),
        ('ignore = ["dog"]', r"has no section \[classes\]"),
        ("[classes", "is not valid TOML"),
        ('ignore = ["dog", "background"]\n[classes]\na = "car"', "leads to 1 classes"),
    ],
)
def test_a_class_map_that_does_not_fit(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EdgesegError, match=message):
        mapped(tmp_path, text)
    assert left_over(tmp_path, "src", "map.toml") == []


# Turned images, odd names


def turned(path: Path, orientation: int, height: int = H, width: int = W) -> np.ndarray:
    """An image that its EXIF turns, stored as height x width; the pixels as they are to be seen."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[1:4, 1:5] = 255
    write_image(path, pixels)
    path.write_bytes(with_exif(path.read_bytes(), orientation))
    return read_image(path)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_tools_that_show_the_upright_image_label_it(tmp_path: Path, orientation: int) -> None:
    upright = turned(tmp_path / "seen.png", orientation)
    height, width = upright.shape[:2]
    y, x = np.nonzero(upright[..., 0])
    corners = box(int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
    shape = f'<polygon label="car" points="{";".join(f"{x},{y}" for x, y in corners)}"/>'
    source = files.cvat(tmp_path / "src", shape, size=(height, width))
    turned(source / "images/a.png", orientation)
    import_dataset(source, tmp_path / "out", strict=True)
    frame, mask = Dataset.open(tmp_path / "out", "train")[0]
    np.testing.assert_array_equal(frame, upright)
    np.testing.assert_array_equal(mask, upright[..., 0] > 0)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("drawn_upright", [True, False])
def test_the_size_says_whether_a_mask_is_turned(tmp_path: Path, orientation: int, drawn_upright: bool) -> None:
    upright = turned(tmp_path / "images/a.png", orientation)
    stored = painted((1, 1, 5, 4, 1))
    write_image(tmp_path / "masks/a.png", (upright[..., 0] > 0).astype(np.uint8) if drawn_upright else stored)
    import_dataset(tmp_path, tmp_path / "out", strict=True)
    frame, mask = Dataset.open(tmp_path / "out", "train")[0]
    np.testing.assert_array_equal(mask, frame[..., 0] > 0)
    np.testing.assert_array_equal(frame, upright)


@pytest.mark.parametrize(("orientation", "shape"), [(3, (H, W)), (6, (H, H))])
def test_a_mask_that_may_be_turned_or_not_is_refused(tmp_path: Path, orientation: int, shape: tuple[int, int]) -> None:
    turned(tmp_path / "images/a.png", orientation, *shape)
    write_image(tmp_path / "masks/a.png", np.ones(shape, np.uint8))
    with pytest.raises(FileError, match=f"EXIF orientation {orientation}, and its labels may be turned or not"):
        import_dataset(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("name", [n for n in formats.writable() if n != "cityscapes"])
def test_an_export_of_a_turned_image_is_upright(tmp_path: Path, name: str) -> None:
    upright = turned(tmp_path / "set/train/images/a.png", 6)
    write_image(tmp_path / "set/train/masks/a.png", (upright[..., 0] > 0).astype(np.uint8))
    dump(tmp_path / "set/classes.txt", "background\ncar\n")
    export_dataset(tmp_path / "set", name, tmp_path / "labels")
    import_dataset(tmp_path / "labels", tmp_path / "back", strict=True)
    frame, mask = Dataset.open(tmp_path / "back", "train")[0]
    np.testing.assert_array_equal(frame, upright)
    np.testing.assert_array_equal(mask, upright[..., 0] > 0)


def test_names_that_collide_without_case_or_folders_stay_apart(tmp_path: Path) -> None:
    names = ("a/x.png", "b/x.png", "a_x.png", "straße.png", "STRASSE.png", "é.png", "e\u0301.png", "A/X.png", ".x.png")
    for i, name in enumerate(names):
        write_image(tmp_path / "src/images" / name, np.full((H, W, 3), i, np.uint8))
    images = [{"id": i, "file_name": name, "height": H, "width": W} for i, name in enumerate(names)]
    annotations = [{"image_id": i, "category_id": 1, "segmentation": [[0, 0, i + 1, 0, i + 1, 1, 0, 1]]}
                   for i in range(len(names))]  # fmt: skip
    document = {"images": images, "categories": [{"id": 1, "name": "car"}], "annotations": annotations}
    dump(tmp_path / "src/labels.json", document)
    result = import_dataset(tmp_path / "src/labels.json", tmp_path / "out", strict=True)
    assert result.frames == len(names)
    stems = []
    for split in ("train", "val", "test"):
        part = Dataset.open(tmp_path / "out", split)
        stems += [(split, p.stem.casefold()) for p in part.images]
        for i in range(len(part)):
            frame, mask = part[i]
            assert mask.sum() == frame[0, 0, 0] + 1
    assert len(set(stems)) == len(names)


def test_class_names_that_a_line_cannot_hold(tmp_path: Path) -> None:
    names = ["a#b", "a b", "x\ny", "0 1 2 3", "(id 3 = ignore)", "  ", "[q]"]
    documents = {"images": [{"id": 1, "file_name": "a.png", "height": H, "width": W}],
                 "categories": [{"id": i, "name": name} for i, name in enumerate(names)]}  # fmt: skip
    picture(tmp_path / "a.png")
    result = import_dataset(dump(tmp_path / "l.json", documents), tmp_path / "out", strict=True)
    assert Dataset.open(tmp_path / "out", "train").classes.names == result.classes
    assert result.classes[:4] == ("background", "a b", "a b (2)", "x y")


# Broken files


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg_with_a_thumbnail() -> bytes:
    import cv2

    image = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)
    whole, small = (cv2.imencode(".jpg", i)[1].tobytes() for i in (image, image[:8, :8]))
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(small) + 2) + small + whole[2:]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"", "is empty"),
        ("a.png", b"nonsense", "cannot be decoded"),
        ("a.png", png_header(1_000_000, 8), "is 1000000x8.\nAt most 65535 on a side"),
        ("a.png", png_header(60_000, 60_000), "is 60000x60000"),
        ("a.jpg", jpeg_with_a_thumbnail()[:-200], "is cut off"),
    ],
    ids=["empty", "nonsense", "wide", "large", "cut"],
)
def test_a_broken_image_is_left_out_and_the_rest_imported(
    tmp_path: Path, name: str, content: bytes, message: str, edgeseg: Edgeseg
) -> None:
    picture(tmp_path / "src/images/b.png")
    write_image(tmp_path / "src/masks/a.png", painted())
    write_image(tmp_path / "src/masks/b.png", painted((1, 1, 5, 4, 1)))
    (tmp_path / "src/images" / name).write_bytes(content)
    ran = edgeseg("data", "import", tmp_path / "src", "--out", tmp_path / "out", "--json", "-")
    assert ran.code == 1, ran.err
    (problem,) = json.loads(ran.out)["problems"]
    assert problem["file"].endswith(name) and message.split("\n")[0] in problem["what"]
    assert "1 frames left out" in ran.err
    assert edgeseg("data", "import", tmp_path / "src", "--out", tmp_path / "all", "--strict").code == 2
    assert left_over(tmp_path, "src", "out") == []


@pytest.mark.parametrize("place", ["images/a.png", "masks/a.png"])
@pytest.mark.parametrize(("share", "message"), [(0.0, "is empty"), (0.5, "cannot be decoded")])
def test_a_png_that_was_cut_off_is_left_out(tmp_path: Path, place: str, share: float, message: str) -> None:
    for name in ("a", "b"):
        noise = np.random.default_rng(0).integers(0, 255, (H, W, 3), np.uint8)
        write_image(tmp_path / f"src/images/{name}.png", noise)
        write_image(tmp_path / f"src/masks/{name}.png", painted((1, 1, 5, 4, 1)))
    path = tmp_path / "src" / place
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    result = import_dataset(tmp_path / "src", tmp_path / "out")
    (problem,) = result.problems
    assert result.frames == 1 and problem.file.endswith("a.png") and message in problem.what
    with pytest.raises(FileError, match=message):
        import_dataset(tmp_path / "src", tmp_path / "strict", strict=True)
    assert left_over(tmp_path, "src", "out") == []


def test_a_jpeg_with_a_thumbnail_is_whole(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(jpeg_with_a_thumbnail())
    write_image(tmp_path / "masks/a.png", painted((1, 1, 5, 4, 1)))
    assert import_dataset(tmp_path, tmp_path / "out", strict=True).frames == 1


LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
SPY = '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (LAUGHS, "", "declares a document type"),
        (SPY, "", "declares a document type"),
        ("", "<", "cannot be read"),
        ("", "</annotations", "cannot be read"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_that_is_broken_or_a_trap(tmp_path: Path, before: str, after: str, message: str, encoding: str) -> None:
    source = files.cvat(tmp_path / "src", CAR)
    path = source / "annotations.xml"
    path.write_bytes((before + path.read_text() + after).encode(encoding))
    with pytest.raises(FileError, match=message):
        import_dataset(source, tmp_path / "out", "cvat")
    assert left_over(tmp_path, "src") == []


def test_documents_that_cannot_be_read_are_named_when_nothing_else_is_there(tmp_path: Path) -> None:
    dump(tmp_path / "labels.json", '{"images": [')
    with pytest.raises(FileError, match=r"in no format that edgeseg knows. labels.json cannot be read"):
        import_dataset(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ('<polygon label="car" points="1,1;5,1"/>', "a polygon of label 'car' has 4 numbers"),
        ('<polygon label="car" points="1,1;nan,1;5,5"/>', "no place in an image"),
        ('<polygon label="car" points="1,1;1e300,1;5,5"/>', "no place in an image"),
        ('<polygon label="car" points="1;2"/>', "cannot be read.\nExpected points x,y"),
        ('<mask label="car" rle="1,2" left="0" top="0" width="3" height="2"/>', "is for 3 pixels, not 6"),
        ('<mask label="car" rle="1,-2,7" left="0" top="0" width="3" height="2"/>', "impossible lengths"),
        ('<mask label="car" rle="6" left="0" top="0" width="9000000" height="2"/>', "is 9000000x2 in an image"),
        ('<ellipse label="car" cx="3" cy="3" rx="-1" ry="2"/>', "the radii -1 and 2"),
        ('<box label="car" xtl="a" ytl="0" xbr="3" ybr="3"/>', "has xtl 'a'"),
        ('<polygon label="" points="1,1;5,1;5,5"/>', "has the label ''"),
    ],
)
def test_a_shape_that_cannot_be_drawn_names_itself(tmp_path: Path, shape: str, message: str) -> None:
    with pytest.raises(FileError, match=message):
        import_dataset(files.cvat(tmp_path / "src", shape), tmp_path / "out", strict=True)


def test_polygons_are_clipped_and_those_outside_counted(tmp_path: Path) -> None:
    shapes = ("-9,-9;5,-9;5,4;-9,4", "20,20;9000,20;9000,9000;20,9000", "-9,1;-3,1;-3,5", "1,1;1,1;1,1")
    source = files.cvat(tmp_path / "src", *(f'<polygon label="car" points="{p}"/>' for p in shapes))
    result = import_dataset(source, tmp_path / "out", strict=True)
    np.testing.assert_array_equal(only(tmp_path / "out"), painted((0, 0, 5, 4, 1), (20, 20, W, H, 1)))
    assert result.losses == (
        "shapes that reach out of the image are cut: 2", "shapes without a pixel in the image: 2"
    )  # fmt: skip


def test_an_outline_that_goes_to_and_fro_for_ever_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    zigzag = ";".join(f"{i % 7},{(i % 2) * 1e8}" for i in range(200_000))
    source = files.cvat(tmp_path / "src", f'<polygon label="car" points="{zigzag}"/>', size=(4000, 32))
    with pytest.raises(FileError, match="goes to and fro too often"):
        import_dataset(source, tmp_path / "out", strict=True)


def test_documents_nested_too_deep(tmp_path: Path) -> None:
    deep = "<polygon>" * 5000 + "</polygon>" * 5000
    with pytest.raises(FileError, match="nested too deep"):
        import_dataset(files.cvat(tmp_path / "xml", deep), tmp_path / "out")
    with pytest.raises(FileError, match=r"aliases .* or deep lists"):
        import_dataset(files.yolo(tmp_path / "yaml", "", "names: " + "[" * 90_000), tmp_path / "out")
    picture(tmp_path / "json/a.png")
    nested = '{"images": [], "categories": [], "annotations": ' + "[" * 90_000 + "]" * 90_000 + "}"
    with pytest.raises(FileError, match="cannot be read"):
        import_dataset(dump(tmp_path / "json/l.json", nested), tmp_path / "out", "coco", strict=True)


def test_yaml_aliases_and_wrong_ids(tmp_path: Path) -> None:
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nnames: [car, dog]\n"
    with pytest.raises(FileError, match="has aliases"):
        import_dataset(files.yolo(tmp_path / "bomb", "", bomb), tmp_path / "out")
    with pytest.raises(FileError, match=r"a.txt:2: class 7.\ndata.yaml names 0 to 1"):
        import_dataset(files.yolo(tmp_path / "ids", "\n7 0 0 1 0 1 1\n"), tmp_path / "out", strict=True)


def test_a_bitmap_that_unpacks_too_far(tmp_path: Path) -> None:
    import base64

    data = base64.b64encode(zlib.compress(bytes(65 << 20))).decode()
    item = {"classTitle": "car", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [0, 0]}}
    with pytest.raises(FileError, match="has a bitmap of more than"):
        import_dataset(files.supervisely(tmp_path / "src", item), tmp_path / "out")


def test_categories_in_a_circle_do_no_harm(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    documents = {"images": [{"id": 1, "file_name": "a.png", "height": H, "width": W}], "annotations": [],
                 "categories": [{"id": 1, "name": "a", "supercategory": "b"},
                                {"id": 2, "name": "b", "supercategory": "a", "parents": ["a"]}]}  # fmt: skip
    assert import_dataset(dump(tmp_path / "l.json", documents), tmp_path / "out").classes == ("background", "a", "b")


def test_a_nan_in_json_is_the_problem_of_its_frame(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    images = [{"id": i, "file_name": n, "height": H, "width": W} for i, n in enumerate(("a.png", "b.png"))]
    ring = [1, 1, 5, 1, float("nan"), 4]
    documents = {"images": images, "categories": [{"id": 1, "name": "car"}],
                 "annotations": [{"image_id": 0, "category_id": 1, "segmentation": [ring]}]}  # fmt: skip
    result = import_dataset(dump(tmp_path / "l.json", documents), tmp_path / "out")
    assert result.frames == 1 and "no place in an image" in result.problems[0].what


def test_runs_of_another_size_or_kind() -> None:
    from edgeseg.geometry import rle

    for call, message in (
        (lambda: rle.from_coco_text("é"), "not COCO's text"),
        (lambda: rle.from_coco_text("o"), "not COCO's text"),
        (lambda: rle.from_coco_text("o" * 90 + "0"), "impossible lengths"),
        (lambda: rle.from_label_studio([1, 2, 3], 2, 2), "is cut off"),
        (lambda: rle.from_label_studio([300], 2, 2), "something else than bytes"),
        (lambda: rle.from_label_studio([255] * 40, 2, 2), "is for 4294967295 values"),
        (lambda: rle.coco_region([2**70], 4, 4), "not 16"),
        (lambda: rle.from_runs([1.5, 2], 2, 2), "is for"),
    ):
        with pytest.raises(FileError, match=message):
            call()


@lru_cache
def seeds(folder: Path) -> dict[str, Path]:
    """A small set in every format that can be written, and those written by hand."""
    found = {}
    for name in formats.writable():
        names = ("road", "sidewalk", "car") if name == "cityscapes" else ("background", "car", "b c")
        source = files.dataset(folder / f"set-{name}", names, shape=(8, 10))
        export_dataset(source, name, folder / name)
        found[name] = folder / name
    ring = {"name": "polygon", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]}
    found["cvat by hand"] = files.cvat(folder / "h-cvat", CAR, '<ellipse label="dog" cx="9" cy="9" rx="6" ry="3"/>')
    found["labelme by hand"] = files.labelme(
        folder / "h-labelme", {"label": "car", "points": box(1, 1, 5, 4), "shape_type": "polygon", "group_id": 1}
    )
    found["via by hand"] = files.via2(
        folder / "h-via", {"shape_attributes": ring, "region_attributes": {"kind": "car"}}
    )
    found["supervisely by hand"] = files.supervisely(
        folder / "h-supervisely",
        {"classTitle": "dog", "geometryType": "polygon", "points": {"exterior": box(1, 1, 9, 9), "interior": []}},
    )
    polygon = {"type": "polygonlabels", "original_width": W, "original_height": H,
               "value": {"polygonlabels": ["car"], "points": box(1, 1, 50, 50)}}  # fmt: skip
    found["label_studio by hand"] = files.label_studio(folder / "h-studio", {"result": [polygon]})
    return found


@pytest.fixture(scope="session")
def seed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seeds")


@settings(max_examples=250)
@given(number=st.integers(0, 2**32), which=st.integers(0, 99))
def test_damaged_files_of_any_format_are_errors_that_people_can_read(
    number: int, which: int, seed_folder: Path, tmp_path: Path
) -> None:
    rng = random.Random(number)
    known = seeds(seed_folder)
    name = sorted(known)[which % len(known)]
    source = tmp_path / "damaged"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(known[name], source)
    mutations.damage(source, rng)
    try:
        result = import_dataset(source, tmp_path / "out", rng.choice(("auto", name.split()[0])))
    except EdgesegError as error:
        assert error.hint
    else:
        assert result.frames == sum(len(list((tmp_path / "out" / s / "masks").glob("*.png"))) for s in result.splits)
        shutil.rmtree(tmp_path / "out")
    assert left_over(tmp_path, "damaged") == []


def test_an_imported_set_with_objects_is_evaluated_as_any_other(
    tmp_path: Path, bundle: Path, street: Path, edgeseg: Edgeseg
) -> None:
    export_dataset(street, "coco", tmp_path / "coco")
    ran = edgeseg("data", "import", tmp_path / "coco", "--out", tmp_path / "plain", "--json", "-")
    assert ran.code == 0 and "read as coco: 18 frames" in ran.err
    shutil.copytree(street, tmp_path / "objects")
    for path in (street / "test/masks").glob("*.png"):
        write_image(tmp_path / "objects/test/instances" / path.name, np.ones((64, 96), np.uint16))  # type: ignore[arg-type]
    first, second = (edgeseg("eval", bundle, "--data", root, "--json", "-") for root in (street, tmp_path / "objects"))
    assert first.code == second.code == 0
    assert json.loads(first.out)["miou"] == json.loads(second.out)["miou"]


def test_an_option_of_another_format(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Unknown format"):
        import_dataset(tmp_path, tmp_path / "out", "nonsense")
