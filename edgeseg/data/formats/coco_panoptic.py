"""COCO panoptic (https://cocodataset.org/#format-data): a JSON of segments and a PNG of their ids for each image.

    SRC/panoptic_SPLIT.json (also in annotations/), SRC/panoptic_SPLIT/NAME.png, images as those of COCO

A PNG's color is the id of the segment: R + 256 G + 65536 B; 0 is no segment. Classes are those of COCO after
`background`; things are objects with the segment's id, stuff (isthing = 0) and crowds are none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from edgeseg.data.dataset import Classes
from edgeseg.data.formats import KEPT, Frame, LabeledFrame, Labels, _coco, _colors, _files
from edgeseg.data.labelmap import MOST_OBJECTS, LabelMap
from edgeseg.errors import FileError
from edgeseg.images import read_colors, write_image

TITLE = "COCO panoptic"
OBJECTS = KEPT


class Segment(msgspec.Struct, gc=False):
    id: int
    category_id: int | str
    iscrowd: int | bool = 0


class Annotation(msgspec.Struct, gc=False):
    image_id: int | str
    file_name: str
    segments_info: list[Segment]


class PanopticImage(msgspec.Struct, gc=False):
    id: int | str
    file_name: str


class Category(msgspec.Struct, gc=False):
    id: int | str
    name: str
    isthing: int | bool = 1


class Panoptic(msgspec.Struct):
    images: list[PanopticImage]
    annotations: list[Annotation]
    categories: list[Category]


def probe(source: Path) -> bool:
    return bool(_documents(source))


def _documents(source: Path) -> list[Path]:
    return [path for path in _files.json_files(source, "annotations") if _files.PANOPTIC in _files.keys(path)]


def read(source: Path) -> Labels:
    found = _documents(source)
    if not found:
        raise _files.not_this(source, "COCO panoptic", "Expected a JSON file whose annotations have segments_info.")
    documents = {path: _files.read_document(path, Panoptic) for path in found}
    ordered = [
        c
        for document in documents.values()
        for c in sorted(document.categories, key=lambda c: (isinstance(c.id, str), c.id))
    ]
    classes, ids = _files.classes_of((category.name for category in ordered), str(found[0]))
    frames = [frame for path, document in documents.items() for frame in _frames(source, path, document, ids)]
    return Labels(classes, frames)


def _frames(source: Path, path: Path, document: Panoptic, ids: dict[str, int]) -> Iterator[LabeledFrame]:
    images = {image.id: image.file_name for image in document.images}
    categories = {category.id: category for category in document.categories}
    split, here, top = _coco.document_split(source, path), path.absolute().parent, path.absolute().parent.parent
    masks = [base / name for base in (here, top) for name in (path.stem, f"{path.stem}_masks", "panoptic", "masks", "")]
    places = _coco.image_folders(path, split)
    for annotation in document.annotations:
        name = images.get(annotation.image_id, annotation.file_name)
        image = _files.find_image(name, *places, within=top)
        mask = _files.find_image(annotation.file_name, *masks, within=top)
        draw = partial(_draw, mask, annotation, categories, ids)
        yield LabeledFrame(_files.without_split(name), image, draw, split)


def _draw(path: Path, annotation: Annotation, categories: dict[int | str, Category], ids: dict[str, int]) -> LabelMap:
    rgb = read_colors(path)
    found = _colors.codes(rgb[..., ::-1])  # R is the lowest byte
    segments = {segment.id: segment for segment in annotation.segments_info}
    values, place = np.unique(found, return_inverse=True)
    classes, numbers, losses = np.zeros(len(values), np.uint8), np.zeros(len(values), np.uint16), Counter[str]()
    things = 0
    for i, value in enumerate(values.tolist()):
        if value == 0:
            continue
        segment = segments.get(value)
        category = categories.get(segment.category_id) if segment else None
        if segment is None or category is None:
            raise FileError(f"{path} has the segment {value}, which has no category.", "Export the labels again.")
        classes[i] = ids[category.name]
        if category.isthing and not segment.iscrowd:
            things += 1
            numbers[i] = value if value <= MOST_OBJECTS else 0
    large = [
        i for i, value in enumerate(values.tolist()) if value > MOST_OBJECTS and _is_thing(segments, categories, value)
    ]
    if large:
        losses["objects with an id above 65535 have a new one"] = len(large)
        free = iter(sorted(set(range(1, things + len(large) + 1)) - set(numbers.tolist())))
        for i in large:
            numbers[i] = next(free)
    if segment_losses := sum(segment.iscrowd != 0 for segment in segments.values()):
        losses["crowds count as their class, without objects"] = segment_losses
    shape = found.shape
    return LabelMap(classes[place].reshape(shape), numbers[place].reshape(shape) if things else None, losses)


def _is_thing(segments: dict[int, Segment], categories: dict[int | str, Category], value: int) -> bool:
    segment = segments.get(value)
    return bool(segment and not segment.iscrowd and categories[segment.category_id].isthing)


def write(frames: Iterable[Frame], classes: Classes, out: Path) -> Sequence[str]:
    """Objects keep their ids; what belongs to none has ids above 65535."""
    writer = _coco.Writer(out, classes)
    for frame in frames:
        image_id, codes = writer.image(frame), np.zeros(frame.size, np.uint32)
        segments: dict[int, object] = {}
        for _, item in frame.shapes(classes):
            code = item.instance or (1 << 16) + item.class_id
            if code in segments:  # one object of two classes
                code = (1 << 17) + len(segments)
            codes[item.region.window][item.region.mask] = code
            segments[code] = {"id": code, **writer.segment(frame, item)}
        bgr = np.stack((codes >> 16, codes >> 8 & 255, codes & 255), axis=-1).astype(np.uint8)
        file = f"{frame.name}.png"
        write_image(out / "annotations" / f"panoptic_{frame.split}" / file, bgr)
        content = {"image_id": image_id, "file_name": file, "segments_info": list(segments.values())}
        writer.annotation(frame.split, content)
    writer.save("panoptic")
    return ()
