"""Supervisely (https://docs.supervisely.com/data-organization/00_ann_format_navi): JSON with bitmaps and polygons.

    SRC/meta.json  SRC/[DATASET/]ann/NAME.jpg.json  SRC/[DATASET/]img/NAME.jpg

Bitmaps (PNG in zlib in base64, at their origin), polygons with holes (corners are pixels, and an outline belongs to its
shape) and rectangles; later objects cover earlier ones. Classes are those of meta.json after `background`.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from edgeseg.data.dataset import Classes
from edgeseg.data.formats import SHAPES, Frame, LabeledFrame, Labels, _files
from edgeseg.data.labelmap import BACKGROUND, IGNORED_LABELS, Canvas, LabelMap
from edgeseg.data.store import store_image
from edgeseg.errors import FileError
from edgeseg.files import write_bytes
from edgeseg.geometry.regions import Region, box, placed, points, with_outline

TITLE = "Supervisely"
OBJECTS = SHAPES
MAX_BITMAP = 64 << 20  # bytes of a PNG


class Size(msgspec.Struct, gc=False):
    height: int
    width: int


class Outline(msgspec.Struct, gc=False):
    exterior: list[tuple[float, float]] = []
    interior: list[list[tuple[float, float]]] = []


class Bitmap(msgspec.Struct, gc=False):
    data: str
    origin: tuple[int, int]


class Item(msgspec.Struct, gc=False):
    classTitle: str
    geometryType: str = ""
    points: Outline | None = None
    bitmap: Bitmap | None = None
    tags: list[msgspec.Raw] = []


class Annotation(msgspec.Struct):
    size: Size
    objects: list[Item]


class MetaClass(msgspec.Struct):
    title: str
    color: str = ""


class Meta(msgspec.Struct):
    classes: list[MetaClass]


def probe(source: Path) -> bool:
    return (source / "meta.json").is_file() and any(True for _ in _folders(source))


def _folders(source: Path) -> Iterator[Path]:
    yield from sorted(p.parent for pattern in ("ann", "*/ann") for p in source.glob(pattern) if p.is_dir())


def read(source: Path) -> Labels:
    meta = _files.read_document(source / "meta.json", Meta)
    colors = {c.title: rgb for c in meta.classes if (rgb := _files.hex_color(c.color))}
    classes, ids = _files.classes_of((c.title for c in meta.classes), str(source / "meta.json"), colors)
    frames = []
    for folder in _folders(source):
        for path in sorted((folder / "ann").glob("*.json")):
            image = folder / "img" / path.stem
            image = image if image.is_file() else _files.image_of(image) or image
            inner = folder.relative_to(source).as_posix()
            name = f"{inner}/{path.stem}"
            frames.append(
                LabeledFrame(
                    _files.without_split(name), image, partial(_draw, path, ids), _files.folder_split(name), True
                )
            )
    return Labels(classes, frames)


def _draw(path: Path, ids: dict[str, int]) -> LabelMap:
    document = _files.read_document(path, Annotation)
    canvas = Canvas(document.size.height, document.size.width, ids)
    for item in document.objects:
        region = _region(path, item, canvas.height, canvas.width)
        if region is None:
            canvas.lose(f"objects of type {item.geometryType[:20]} are left out")
        else:
            canvas.paint(item.classTitle, region)
        if item.tags:
            canvas.lose("objects with tags, which are left out")
    return canvas.finished()


def _region(path: Path, item: Item, height: int, width: int) -> Region | None:
    what = f"{path}: a {item.geometryType} of class {item.classTitle!r}"
    if item.bitmap is not None:
        x, y = item.bitmap.origin
        if max(abs(x), abs(y)) > 1 << 24:
            raise FileError(f"{what} lies at {x}, {y}.", "Export it again.")
        return placed(_files.png_mask(_png(item.bitmap.data, what), what), x, y, height, width)
    if item.points is None or item.geometryType not in ("polygon", "rectangle"):
        return None
    corners = item.points.exterior
    if item.geometryType == "rectangle":
        if len(corners) != 2:
            raise FileError(f"{what} has {len(corners)} points.", "Expected 2.")
        (x0, y0), (x1, y1) = corners
        return with_outline(points(box(x0, y0, x1 - x0, y1 - y0).tolist(), what), height, width)
    region = with_outline(points(corners, what), height, width)
    for hole in item.points.interior:
        region = region.minus(with_outline(points(hole, what), height, width))
    return region


def _png(text: str, what: str) -> bytes:
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(_files.base64_bytes(text, what), MAX_BITMAP)
    except zlib.error:
        raise FileError(f"{what} has a bitmap that cannot be read.", "Export it again.") from None
    if unpacker.unconsumed_tail:
        raise FileError(f"{what} has a bitmap of more than {MAX_BITMAP} bytes.", "Export it again.")
    return data


def write(frames: Iterable[Frame], classes: Classes, out: Path) -> Sequence[str]:
    """A project with a dataset for each split, of bitmaps, which hold any region."""
    for frame in frames:
        image = store_image(frame.image, out / frame.split / "img" / frame.name)
        items = []
        for number, (title, item) in enumerate(frame.shapes(classes), 1):
            data = base64.b64encode(zlib.compress(_files.mask_png(item.region.mask))).decode()
            items.append({"id": number, "classTitle": title, "geometryType": "bitmap", "tags": [],
                          "bitmap": {"data": data, "origin": [item.region.x, item.region.y]}})  # fmt: skip
        height, width = frame.size
        document = {"description": "", "tags": [], "size": {"height": height, "width": width}, "objects": items}
        write_bytes(out / frame.split / "ann" / f"{image.name}.json", json.dumps(document).encode())
    named = [*zip(classes.names, classes.palette), (IGNORED_LABELS[0], (0, 0, 0))]
    listed = [{"title": name, "shape": "bitmap", "color": "#{:02X}{:02X}{:02X}".format(*color), "geometry_config": {}}
              for name, color in named if name != BACKGROUND]  # fmt: skip
    write_bytes(out / "meta.json", json.dumps({"classes": listed, "tags": [], "projectType": "images"}).encode())
    return ()
