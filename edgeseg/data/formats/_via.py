"""What both versions of the VGG Image Annotator store: shapes with attributes, one of which is the class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgeseg.data.formats import LabeledFrame, Labels, _files
from edgeseg.data.labelmap import Canvas, LabelMap
from edgeseg.errors import FileError
from edgeseg.geometry.regions import Region, box, by_centers, ellipse, points

ATTRIBUTES = ("label", "class", "type", "category", "name")


class Shape(msgspec.Struct, gc=False):
    """`numbers`: those of the shape, x, y, ... or what VIA 3 says after its kind."""

    kind: str
    numbers: list[Any]
    attributes: dict[str, Any]


def labels(path: Path, files: Mapping[str, Sequence[Shape]], options: Mapping[str, Sequence[str]]) -> Labels:
    """Of the shapes of each file. `options`: the values of attributes that have a list of them, in order."""
    attribute = _attribute(shape for shapes in files.values() for shape in shapes)
    used = sorted({label for shapes in files.values() for s in shapes if (label := _label(s, attribute))})
    classes, ids = _files.classes_of([*options.get(attribute, ()), *used], str(path))
    top = path.absolute().parent
    frames = []
    for name, shapes in files.items():
        image = _files.find_image(name, top, top / "images", within=top)
        draw = partial(_draw, path, image, shapes, attribute, ids)
        frames.append(LabeledFrame(_files.without_split(name), image, draw, _files.folder_split(name), upright=True))
    return Labels(classes, frames)


def _attribute(shapes: Iterable[Shape]) -> str:
    """The attribute that names the class."""
    found = Counter(name for shape in shapes for name in shape.attributes)
    lower = {name.lower(): name for name in found}
    return next((lower[name] for name in ATTRIBUTES if name in lower), next(iter(found), ""))


def _label(shape: Shape, attribute: str) -> str:
    value = shape.attributes.get(attribute)
    if isinstance(value, dict):  # check boxes: {"car": true}
        value = next((key for key, chosen in value.items() if chosen), None)
    return "" if value is None else str(value).strip()


def _draw(path: Path, image: Path, shapes: Sequence[Shape], attribute: str, ids: dict[str, int]) -> LabelMap:
    canvas = Canvas(*_files.upright_size(image), ids)
    for shape in shapes:
        if shape.kind not in ("polygon", "rect", "circle", "ellipse"):
            canvas.lose(f"shapes of type {shape.kind[:20]} are left out")
        elif label := _label(shape, attribute):
            canvas.paint(label, _region(f"{path}: a {shape.kind} of {image.name}", shape, canvas.height, canvas.width))
        else:
            canvas.lose("shapes without a class are left out")
    return canvas.finished()


def _region(what: str, shape: Shape, height: int, width: int) -> Region:
    if shape.kind == "polygon":
        return by_centers([points(shape.numbers, what)], height, width)
    try:
        numbers = [float(number) for number in shape.numbers]
        if shape.kind == "rect":
            x, y, w, h = numbers
            return by_centers([points(box(x, y, w, h).tolist(), what)], height, width)
        cx, cy, rx, ry, theta = [*numbers[:3], numbers[2], 0] if shape.kind == "circle" else [*numbers, 0][:5]
    except (TypeError, ValueError, OverflowError, IndexError):
        raise FileError(f"{what} cannot be read: {str(shape.numbers)[:60]}.", "Expected its numbers.") from None
    return ellipse(cx, cy, rx, ry, float(np.degrees(theta)), height, width)
