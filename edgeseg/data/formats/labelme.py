"""LabelMe JSON (https://github.com/wkentaro/labelme): one file for each image, which it names or holds.

    SRC/[FOLDER/]NAME.json and NAME.jpg; SRC/labels.txt gives the order of the labels, where there is one

Shapes cover those above them in the file; shapes of one group_id and label are one object. Coordinates are pixels, and
an outline belongs to its shape, as LabelMe draws: a polygon's corner (3.7, 2) is in the pixel (3, 2). `__ignore__` and
`_background_` mean what they mean there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from edgeseg.data.dataset import Classes, decode_text
from edgeseg.data.formats import SHAPES, Frame, LabeledFrame, Labels, _files
from edgeseg.data.labelmap import BACKGROUND, OWN, Canvas, LabelMap
from edgeseg.data.store import store_image
from edgeseg.errors import FileError
from edgeseg.files import write_bytes
from edgeseg.geometry.regions import Region, box, ellipse, placed, points, with_outline

TITLE = "LabelMe JSON"
OBJECTS = SHAPES
AREAS = ("polygon", "rectangle", "circle", "mask")


class Shape(msgspec.Struct, gc=False):
    label: str
    points: list[tuple[float, float]]
    shape_type: str = "polygon"
    group_id: int | str | None = None
    mask: str | None = None


class Document(msgspec.Struct):
    shapes: list[Shape]
    imagePath: str
    imageHeight: int | None = None
    imageWidth: int | None = None


class WithImage(msgspec.Struct):
    imageData: str | None = None


def probe(source: Path) -> bool:
    return any(True for _ in _documents(source))


def _documents(source: Path) -> Iterator[Path]:
    files = [source] if source.is_file() else sorted(source.rglob("*.json")) if source.is_dir() else []
    first = next((p for p in files if p.suffix.lower() == ".json"), None)
    if first and any({"shapes", "imagePath"} <= _files.keys(p) for p in files[:3]):
        yield from files


def read(source: Path) -> Labels:
    """A document that cannot be read is the problem of its frame."""
    documents = list(_documents(source))
    if not documents:
        raise FileError(f"{source} has no JSON of LabelMe.", "Expected files with shapes and imagePath.")
    listed = (source if source.is_dir() else source.parent) / "labels.txt"
    known = [line.strip() for line in decode_text(listed.read_bytes()).splitlines()] if listed.is_file() else []
    labels, paths = set[str](), list[tuple[Path, Path, bool]]()
    for path in documents:
        try:
            document = _files.read_document(path, Document)
        except FileError:
            paths.append((path, path, False))
            continue
        labels |= {shape.label for shape in document.shapes}
        image = _files.find_image(document.imagePath, path.parent, within=source if source.is_dir() else path.parent)
        paths.append((path, image, not image.is_file()))
    classes, ids = _files.classes_of([*filter(None, known), *sorted(labels)], str(source))
    root = source if source.is_dir() else source.parent
    frames = []
    for path, image, embedded in paths:
        name = path.relative_to(root).as_posix()
        data = partial(_image_data, path) if embedded else None
        split = _files.folder_split(name)
        frames.append(
            LabeledFrame(_files.without_split(name), image, partial(_draw, path, ids), split, upright=True, data=data)
        )
    return Labels(classes, frames)


def _image_data(path: Path) -> bytes:
    text = _files.read_document(path, WithImage).imageData
    if not text:
        raise FileError(f"The image of {path} is neither beside it nor in it.", "Copy the image to where the JSON is.")
    return _files.base64_bytes(text, str(path))


def _draw(path: Path, ids: dict[str, int]) -> LabelMap:
    document = _files.read_document(path, Document)
    height, width = document.imageHeight, document.imageWidth
    if not height or not width:
        height, width = _files.upright_size(_files.find_image(document.imagePath, path.parent))
    canvas = Canvas(height, width, ids)
    for shape in document.shapes:
        if shape.shape_type not in AREAS:
            canvas.lose(f"shapes of type {shape.shape_type[:20]} are left out")
            continue
        owner = OWN if shape.group_id is None else shape.group_id
        canvas.paint(shape.label, _region(path, shape, height, width), owner)
    return canvas.finished()


def _region(path: Path, shape: Shape, height: int, width: int) -> Region:
    what = f"{path}: a {shape.shape_type} of label {shape.label!r}"
    if shape.shape_type == "polygon":
        return with_outline(points(shape.points, what), height, width)
    if len(shape.points) != 2:
        raise FileError(f"{what} has {len(shape.points)} points.", "Expected 2.")
    (x0, y0), (x1, y1) = shape.points
    if shape.shape_type == "rectangle":
        return with_outline(points(box(x0, y0, x1 - x0, y1 - y0).tolist(), what), height, width)
    if shape.shape_type == "circle":
        radius = float(np.hypot(x1 - x0, y1 - y0))
        return ellipse(x0, y0, radius, radius, 0, height, width)
    if not shape.mask:
        raise FileError(f"{what} holds no mask.", "Export it again.")
    points([(x0, y0), (x1, y1), (x1, y1)], what)
    return placed(_files.png_mask(_files.base64_bytes(shape.mask, what), what), int(x0), int(y0), height, width)


def write(frames: Iterable[Frame], classes: Classes, out: Path) -> Sequence[str]:
    """SPLIT/NAME.json beside the image, with mask shapes, which hold any region; labels.txt."""
    for frame in frames:
        image = store_image(frame.image, out / frame.split / frame.name)
        height, width = frame.size
        shapes: list[object] = []
        for label, item in frame.shapes(classes):
            (h, w), x, y = item.region.mask.shape, item.region.x, item.region.y
            shapes.append({
                "label": label, "points": [[x, y], [x + w - 1, y + h - 1]], "group_id": None, "description": "",
                "shape_type": "mask", "flags": {}, "mask": base64.b64encode(_files.mask_png(item.region.mask)).decode(),
            })  # fmt: skip
        document: object = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image.name,
                            "imageData": None, "imageHeight": height, "imageWidth": width}  # fmt: skip
        write_bytes(out / frame.split / f"{frame.name}.json", json.dumps(document).encode())
    others = [name for name in classes.names if name != BACKGROUND]
    write_bytes(out / "labels.txt", "\n".join(("__ignore__", "_background_", *others, "")).encode())
    return ()
