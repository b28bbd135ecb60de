"""VGG Image Annotator 2 (https://www.robots.ox.ac.uk/~vgg/software/via/): a project, or its annotations alone, as JSON.

    SRC.json, or a folder with one such file and the images

The class is the value of the attribute called label, class, type, category or name, or else of the first one. Polygons,
rectangles, circles and ellipses; a pixel is inside if its center is. Later shapes cover earlier ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeseg.data.dataset import Classes
from edgeseg.data.formats import SHAPES, Frame, Labels, _files, _via
from edgeseg.data.labelmap import BACKGROUND, IGNORED_LABELS
from edgeseg.data.store import store_image
from edgeseg.errors import FileError
from edgeseg.files import write_bytes
from edgeseg.geometry import trace

TITLE = "VGG Image Annotator 2"
OBJECTS = SHAPES


class Region2(msgspec.Struct, gc=False):
    shape_attributes: dict[str, Any]
    region_attributes: dict[str, Any] = {}


class File2(msgspec.Struct, gc=False):
    filename: str
    regions: list[Region2] | dict[str, Region2] = []


class Project2(msgspec.Struct):
    images: dict[str, File2] = msgspec.field(name="_via_img_metadata")
    attributes: dict[str, Any] = msgspec.field(name="_via_attributes", default={})


def probe(source: Path) -> bool:
    return _document(source) is not None


def _document(source: Path) -> Path | None:
    found = [path for path in _files.json_files(source) if _looks_like_via(path)]
    return found[0] if len(found) == 1 else None


def _looks_like_via(path: Path) -> bool:
    keys = _files.keys(path)
    if "_via_img_metadata" in keys:
        return True
    if not keys or "[]" in keys or keys & {"images", "shapes", "annotations", "metadata"}:
        return False
    try:  # the annotations alone: {"NAME.jpg1234": {"filename": ..., "regions": ...}}
        return bool(_files.read_document(path, dict[str, File2]))
    except FileError:
        return False


def read(source: Path) -> Labels:
    path = _document(source)
    if path is None:
        raise _files.not_this(source, "JSON of VIA 2", "Expected a project of VIA 2, or its annotations.")
    document = _files.read_document(path, Project2) if "_via_img_metadata" in _files.keys(path) else None
    images = document.images if document else _files.read_document(path, dict[str, File2])
    files: dict[str, list[_via.Shape]] = {}
    for file in images.values():
        regions = file.regions.values() if isinstance(file.regions, dict) else file.regions
        files[file.filename] = [_shape(region) for region in regions]
    attributes = document.attributes.get("region") if document else {}
    options = {
        name: list(value["options"])
        for name, value in (attributes if isinstance(attributes, dict) else {}).items()
        if isinstance(value, dict) and isinstance(value.get("options"), dict)
    }
    return _via.labels(path, files, options)


def _shape(region: Region2) -> _via.Shape:
    at = region.shape_attributes
    kind = str(at.get("name"))
    names = {"rect": ("x", "y", "width", "height"), "circle": ("cx", "cy", "r"),
             "ellipse": ("cx", "cy", "rx", "ry", "theta")}.get(kind)  # fmt: skip
    if names:
        numbers = [at.get(name, 0 if name == "theta" else None) for name in names]
    else:
        xs, ys = at.get("all_points_x"), at.get("all_points_y")
        paired = isinstance(xs, list) and isinstance(ys, list) and len(xs) == len(ys)
        numbers = [value for pair in zip(xs, ys) for value in pair] if paired and xs and ys else []
    return _via.Shape(kind, numbers, region.region_attributes)


def write(frames: Iterable[Frame], classes: Classes, out: Path) -> Sequence[str]:
    """via.json and SPLIT/NAME. An object is one polygon along pixel corners, which goes to its parts and holes and back
    the same way."""
    images: dict[str, object] = {}
    for frame in frames:
        file = store_image(frame.image, out / frame.split / frame.name)
        regions = []
        for label, item in frame.shapes(classes):
            ring = trace.outline(item.region)
            regions.append({
                "shape_attributes": {"name": "polygon", "all_points_x": ring[:, 0].tolist(),
                                     "all_points_y": ring[:, 1].tolist()},
                "region_attributes": {"label": label},
            })  # fmt: skip
        size, name = file.stat().st_size, f"{frame.split}/{file.name}"
        images[f"{name}{size}"] = {"filename": name, "size": size, "regions": regions, "file_attributes": {}}
    options = dict.fromkeys((*(n for n in classes.names if n != BACKGROUND), IGNORED_LABELS[0]), "")
    attribute = {"type": "dropdown", "description": "", "options": options, "default_options": {}}
    document = {"_via_settings": {"core": {}, "ui": {}, "project": {"name": "edgeseg"}}, "_via_img_metadata": images,
                "_via_attributes": {"region": {"label": attribute}, "file": {}},
                "_via_data_format_version": "2.0.10", "_via_image_id_list": list(images)}  # fmt: skip
    write_bytes(out / "via.json", json.dumps(document).encode())
    return ()
