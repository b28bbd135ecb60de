"""COCO JSON (https://cocodataset.org/#format-data): instances and stuff, as polygons and both kinds of RLE.

    SRC.json, or a folder with one such file; images beside it, in images/, or in the folder above

Every category becomes a class in the order of its id, after `background` (0), which is what nothing covers. Later
annotations cover earlier ones; crowds count as their category.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edgeseg.data.dataset import Classes
from edgeseg.data.formats import LabeledFrame, Labels, _rle
from edgeseg.errors import FileError, MissingPackage
from edgeseg.files import require_file
from edgeseg.images import MAX_PIXELS, Image
from edgeseg.records import convert, read_json
from edgeseg.spec import default_palette

TITLE = "COCO JSON"
BACKGROUND = "background"
MOST_CLASSES = 255
MARGIN = 4  # how many times its size a polygon may lie outside of an image
MAX_EDGES = 1_000_000  # pixels along a polygon's edges


@dataclass(frozen=True)
class CocoImage:
    id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class CocoCategory:
    id: int
    name: str


@dataclass(frozen=True)
class CocoAnnotation:
    image_id: int
    category_id: int
    segmentation: Any = None


@dataclass(frozen=True)
class Coco:
    images: tuple[CocoImage, ...]
    categories: tuple[CocoCategory, ...]
    annotations: tuple[CocoAnnotation, ...] = ()


def probe(source: Path) -> bool:
    return _document(source) is not None


def read(source: Path) -> Labels:
    path = _document(source)
    if path is None:
        raise FileError(f"{source} is not COCO JSON.", "Expected a file with images, annotations and categories.")
    coco = convert(read_json(path, "Labels"), Coco, f"{path} is not COCO JSON", "Export it again.")
    order = sorted(coco.categories, key=lambda category: category.id)
    names = tuple(dict.fromkeys((BACKGROUND, *(category.name for category in order))))
    if not 2 <= len(names) <= MOST_CLASSES:
        raise FileError(f"{path} has {len(order)} categories.", f"Expected 1 to {MOST_CLASSES - 1}.")
    ids = {category.id: names.index(category.name) for category in order}
    of_image: dict[int, list[CocoAnnotation]] = defaultdict(list)
    for annotation in coco.annotations:
        of_image[annotation.image_id].append(annotation)
    frames = [
        LabeledFrame(_name(image), _find(path, image), partial(_draw, path, image, of_image[image.id], ids))
        for image in coco.images
    ]
    return Labels(Classes(names, default_palette(len(names)), None), frames, tuple(_losses(coco, names)))


def _document(source: Path) -> Path | None:
    """The one JSON file of COCO that `source` is or holds."""
    files = [source] if source.is_file() else sorted([*source.glob("*.json"), *source.glob("annotations/*.json")])
    found = [path for path in files if path.suffix.lower() == ".json" and _looks_like_coco(path)]
    return found[0] if len(found) == 1 else None


def _looks_like_coco(path: Path) -> bool:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and {"images", "categories"} <= set(document)


def _name(image: CocoImage) -> str:
    """Folders become part of the name, so that it stays unique."""
    return re.sub(r"[^\w.-]", "_", "_".join(PurePosixPath(image.file_name).with_suffix("").parts))[:200]


def _find(path: Path, image: CocoImage) -> Path:
    """Where the image lies: beside the file, or in the folder above; never outside of that."""
    top = path.resolve().parent.parent
    for folder in (path.parent, path.parent / "images", top, top / "images"):
        try:
            place = (folder / image.file_name).resolve()
            if top in place.parents and place.is_file():
                return place
        except (OSError, ValueError):  # a name that no file can have
            break
    return path.parent / _name(image)


def _draw(path: Path, image: CocoImage, annotations: list[CocoAnnotation], ids: dict[int, int]) -> Image:
    require_file(_find(path, image), "Image")
    if not 0 < image.height * image.width <= MAX_PIXELS:
        raise FileError(f"{path}: image {image.file_name} is {image.width}x{image.height}.", "Its size is not usable.")
    mask = np.zeros((image.height, image.width), np.uint8)
    for annotation in annotations:
        if annotation.category_id not in ids:
            raise FileError(
                f"{path}: an annotation of {image.file_name} has category {annotation.category_id}.",
                "The file lists no such category.",
            )
        for region in _regions(path, image, annotation.segmentation):
            mask[region > 0] = ids[annotation.category_id]
    return mask


def _regions(path: Path, image: CocoImage, segmentation: Any) -> Iterator[Image]:
    """[H, W] uint8 of every part of an annotation; `segmentation` is a list of polygons, or one RLE."""
    for part in segmentation if isinstance(segmentation, list) else [segmentation]:
        if not part:  # a box alone
            continue
        if isinstance(part, dict) and part.get("size") != [image.height, image.width]:
            raise FileError(
                f"{path}: an RLE of {image.file_name} is for {part.get('size')}.",
                f"Expected [height, width] = [{image.height}, {image.width}].",
            )
        if isinstance(part, list) and (len(part) < 6 or len(part) % 2):
            raise FileError(
                f"{path}: a polygon of {image.file_name} has {len(part)} numbers.",
                "Expected x, y of at least 3 points.",
            )
        try:
            if isinstance(part, dict):
                yield _rle.decode(part.get("counts"), image.height, image.width)
            else:
                yield _polygon(part, image)
        except ValueError as error:
            raise FileError(
                f"{path}: a segmentation of {image.file_name} cannot be read: {error}.", "Export it again."
            ) from None


def _polygon(points: Any, image: CocoImage) -> Image:
    """The filled polygon x, y, x, y, ... [H, W] uint8; ValueError for what is none, or could not be drawn."""
    if not isinstance(points, list) or not all(type(number) in (int, float) for number in points):
        raise ValueError("a polygon is not a list of numbers")
    corners = np.array(points, np.float64).reshape(-1, 2)
    # pycocotools walks along every edge: with corners that are far away, beyond its own memory.
    length = np.abs(np.diff(corners, axis=0, append=corners[:1])).sum()
    reach = MARGIN * max(image.height, image.width)
    if not np.abs(corners).max() <= reach or not length <= MAX_EDGES:  # nor NaN
        raise ValueError(f"a polygon leaves its image of {image.width}x{image.height} by far, or is too long")
    try:
        from pycocotools import mask as coco
    except ImportError as error:
        raise MissingPackage("pycocotools", "Reading COCO JSON", "data") from error
    try:
        return np.asarray(coco.decode(coco.merge(coco.frPyObjects([points], image.height, image.width))), np.uint8)
    except Exception as error:  # pycocotools raises Exception itself
        raise ValueError(str(error)) from None


def _losses(coco: Coco, names: tuple[str, ...]) -> Iterator[str]:
    if coco.annotations:
        yield "objects of one class are not told apart any more"
    if any(not annotation.segmentation for annotation in coco.annotations):
        yield "annotations that are only boxes are left out"
    if len(names) <= len(coco.categories):
        yield "categories of the same name are one class"
