"""COCO: where images lie, the regions of annotations, and the documents that are written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgeseg.data.coco_polygons import as_coco
from edgeseg.data.dataset import SPLITS, Classes
from edgeseg.data.formats import Frame, _files
from edgeseg.data.labelmap import BACKGROUND, IGNORE, IGNORED_LABELS, Object
from edgeseg.data.store import store_image
from edgeseg.errors import FileError
from edgeseg.files import write_bytes
from edgeseg.geometry import rle
from edgeseg.geometry.regions import Region, points
from edgeseg.images import IMAGE_SUFFIXES


def image_folders(path: Path, split: str) -> list[Path]:
    """Where the images of the document `path` may lie: beside it, where others put them, or in the only folder there
    that holds any."""
    here, top = path.absolute().parent, path.absolute().parent.parent
    words = ("", "images", *((f"images/{split}", split, f"{split}2017", f"images/{split}2017") if split else ()))
    return [*(base / word for base in (here, top) for word in words), *_only_folder_of_images(here)]


def _only_folder_of_images(folder: Path) -> list[Path]:
    inside = [place for place in sorted(folder.iterdir()) if place.is_dir() and _holds_images(place)]
    return inside if len(inside) == 1 else []


def _holds_images(folder: Path) -> bool:
    return any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.iterdir())


def regions(path: Path, name: str, height: int, width: int, segmentation: msgspec.Raw) -> Iterator[Region]:
    """Every part of an annotation; `segmentation` is a list of polygons, or one RLE; nothing for a box alone.

    `path` and `name` say in errors which document and image it is of.
    """
    what = f"{path}: a segmentation of {name} cannot be read"
    found: Any = _files.decode(segmentation, Any, what)
    if isinstance(found, dict):
        yield _rle(found, height, width, what)
        return
    if found is not None and not isinstance(found, list):
        raise FileError(f"{what}: {str(found)[:40]!r}.", "Expected a list of polygons, or an RLE.")
    for part in found or ():
        if isinstance(part, dict):
            yield _rle(part, height, width, what)
        elif isinstance(part, list):
            yield as_coco(points(part, f"{path}: a polygon of {name}"), height, width)
        else:
            raise FileError(f"{what}: {str(part)[:40]!r}.", "Expected a list of polygons, or an RLE.")


def _rle(code: dict[str, Any], height: int, width: int, what: str) -> Region:
    counts, size = code.get("counts"), code.get("size")
    try:
        if size != [height, width]:
            raise FileError(f"its RLE is for {str(size)[:40]}", f"Expected [height, width] = [{height}, {width}].")
        if not isinstance(counts, (str, list)):
            raise FileError("its RLE has no counts", "Export it again.")
        runs = rle.from_coco_text(counts) if isinstance(counts, str) else counts
        return rle.coco_region(runs, height, width)
    except FileError as error:
        raise FileError(f"{what}: {error.what.rstrip('.')}.", error.hint) from None


class Writer:
    """One document for each split, annotations/PREFIX_SPLIT.json, and images/SPLIT."""

    def __init__(self, out: Path, classes: Classes):
        self._out, self._classes = out, classes
        self._images: dict[str, list[Mapping[str, object]]] = {split: [] for split in SPLITS}
        self._annotations: dict[str, list[Mapping[str, object]]] = {split: [] for split in SPLITS}
        self._things, self._ignored = set[int](), False

    def image(self, frame: Frame) -> int:
        """The id that the image gets."""
        file = store_image(frame.image, self._out / "images" / frame.split / frame.name)
        (height, width), number = frame.size, sum(map(len, self._images.values())) + 1
        self._images[frame.split].append({"id": number, "file_name": file.name, "height": height, "width": width})
        return number

    def segment(self, frame: Frame, item: Object) -> dict[str, object]:
        """What both say of an object. Parts of a class that are no object, in a frame that has some, are crowds."""
        self._things |= {item.class_id} if item.instance else set()
        self._ignored |= item.class_id == IGNORE
        crowd = item.instance == 0 and frame.labels.instances is not None
        y, x = item.region.window
        return {"category_id": item.class_id + 1, "iscrowd": int(crowd), "area": int(item.region.mask.sum()),
                "bbox": [x.start, y.start, x.stop - x.start, y.stop - y.start]}  # fmt: skip

    def annotation(self, split: str, content: Mapping[str, object]) -> None:
        self._annotations[split].append({"id": sum(map(len, self._annotations.values())) + 1, **content})

    def save(self, prefix: str) -> None:
        named = [(i, name) for i, name in enumerate(self._classes.names) if name != BACKGROUND]
        named += [(IGNORE, IGNORED_LABELS[0])] if self._ignored else []
        categories = [{"id": i + 1, "name": name, "isthing": int(i in self._things)} for i, name in named]
        for split in (split for split in SPLITS if self._images[split]):
            document = {"images": self._images[split], "annotations": self._annotations[split],
                        "categories": categories}  # fmt: skip
            write_bytes(self._out / "annotations" / f"{prefix}_{split}.json", json.dumps(document).encode())


def document_split(source: Path, path: Path) -> str:
    """What the name of one document of a folder says."""
    return _files.split_of(path.stem) if source.is_dir() else ""
