"""What COCO's two formats share: where images lie, and the documents that are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from edgeseg.data.dataset import SPLITS, Classes
from edgeseg.data.formats import Frame, _files
from edgeseg.data.labelmap import BACKGROUND, IGNORE, IGNORED_LABELS, Object
from edgeseg.data.store import store_image
from edgeseg.files import write_bytes


def image_folders(path: Path, split: str) -> list[Path]:
    """Where the images of the document `path` may lie."""
    here, top = path.absolute().parent, path.absolute().parent.parent
    words = ("", "images", *((f"images/{split}", split, f"{split}2017", f"images/{split}2017") if split else ()))
    return [base / word for base in (here, top) for word in words]


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
