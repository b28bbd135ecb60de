"""Cityscapes (https://www.cityscapes-dataset.com): the 19 classes of its benchmark.

    SRC/leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png
    SRC/gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png, NAME_gtFine_instanceIds.png, NAME_gtFine_polygons.json

Other labels are ignored. Where there are no labelIds, polygons are drawn in their order, with their outlines, as the
scripts of Cityscapes do. Objects have the ids of instanceIds (26001: a car); groups ("cargroup") are none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from edgeseg.data.dataset import Classes
from edgeseg.data.formats import KEPT, Frame, LabeledFrame, Labels, _files
from edgeseg.data.labelmap import IGNORE, Canvas, Instances, LabelMap, objects
from edgeseg.data.store import store_image
from edgeseg.errors import FileError
from edgeseg.geometry.regions import points, with_outline
from edgeseg.images import Image, read_instances, read_mask, write_image
from edgeseg.spec import Rgb

TITLE = "Cityscapes"
OBJECTS = KEPT
# name: (label id, color), in the order of the train ids
LABELS: dict[str, tuple[int, Rgb]] = {
    "road": (7, (128, 64, 128)), "sidewalk": (8, (244, 35, 232)), "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)), "fence": (13, (190, 153, 153)), "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)), "traffic sign": (20, (220, 220, 0)), "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)), "sky": (23, (70, 130, 180)), "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)), "car": (26, (0, 0, 142)), "truck": (27, (0, 0, 70)), "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)), "motorcycle": (32, (0, 0, 230)), "bicycle": (33, (119, 11, 32)),
}  # fmt: skip
NAMES = tuple(LABELS)
THINGS = NAMES[NAMES.index("person") :]
PER_CLASS = 1000  # instanceIds: 1000 x label id + number
ENDINGS = ("labelIds.png", "polygons.json")


class Shape(msgspec.Struct, gc=False):
    label: str
    polygon: list[tuple[float, float]]
    deleted: int = 0


class Polygons(msgspec.Struct):
    imgHeight: int
    imgWidth: int
    objects: list[Shape]


def probe(source: Path) -> bool:
    return source.is_dir() and any(True for _ in _labels(source))


def _labels(source: Path) -> Iterator[Path]:
    """gtFine/SPLIT/CITY/NAME_gtFine_ of every frame that has labels."""
    for top in ("gtFine", "gtCoarse"):
        if (source / top).is_dir():
            found = {p.with_name(p.name.removesuffix(e)) for e in ENDINGS for p in (source / top).rglob(f"*_{e}")}
            yield from sorted(found)


def read(source: Path) -> Labels:
    classes = Classes(NAMES, tuple(color for _, color in LABELS.values()), IGNORE)
    frames = []
    for start in _labels(source):
        inner = start.relative_to(source).parent.parts[1:]
        stem = start.name.removesuffix("_").rpartition("_")[0]
        image = source.joinpath("leftImg8bit", *inner, f"{stem}_leftImg8bit")
        name = "/".join((*inner, stem))
        place = _files.image_of(image) or image.with_name(f"{image.name}.png")
        frames.append(LabeledFrame(stem, place, partial(_draw, start), _files.folder_split(name)))
    if not frames:
        raise FileError(f"{source} is not Cityscapes.", "Expected gtFine/SPLIT/CITY/*_gtFine_labelIds.png.")
    return Labels(classes, frames)


def _draw(start: Path) -> LabelMap:
    stored = start.with_name(f"{start.name}labelIds.png")
    if not stored.is_file():
        return _from_polygons(start.with_name(f"{start.name}polygons.json"))
    ids = read_mask(stored)
    table = np.full(256, IGNORE, np.uint8)
    table[[label_id for label_id, _ in LABELS.values()]] = np.arange(len(NAMES))
    losses = Counter[str]()
    others = set(np.unique(ids).tolist()) - {label_id for label_id, _ in LABELS.values()} - {0, 1, 2, 3}
    if others:
        losses["labels outside of the 19 classes are ignored"] = len(others)
    path = start.with_name(f"{start.name}instanceIds.png")
    return LabelMap(table[ids], _objects(path, ids) if path.is_file() else None, losses)


def _objects(path: Path, ids: Image) -> Instances:
    found = read_instances(path)
    if found.shape != ids.shape:
        raise FileError(f"{path} is not as large as its label ids.", "Copy it again.")
    return np.where(found >= PER_CLASS, found, np.uint16(0))


def _from_polygons(path: Path) -> LabelMap:
    document = _files.read_document(path, Polygons)
    ids = {name: i for i, name in enumerate(NAMES)}
    canvas = Canvas(document.imgHeight, document.imgWidth, {**ids, "": IGNORE}, uncovered=IGNORE)
    for shape in document.objects:
        if not shape.deleted:
            label = shape.label.removesuffix("group")
            region = with_outline(points(shape.polygon, f"{path}: a {shape.label}"), canvas.height, canvas.width)
            if label not in ids:
                canvas.lose("labels outside of the 19 classes are ignored")
            number = object() if shape.label in THINGS else None
            canvas.paint(label if label in ids else "", region, number)
    return canvas.finished()


def write(frames: Iterable[Frame], classes: Classes, out: Path) -> Iterator[str]:
    """labelIds and instanceIds of one city. FileError for a class that is not one of the 19."""
    strange = [name for name in classes.names if name not in LABELS]
    if strange:
        raise FileError(f"Cityscapes has no class {', '.join(strange)}.", f"It has: {', '.join(NAMES)}.")
    table = np.zeros(256, np.uint8)
    table[: len(classes.names)] = [LABELS[name][0] for name in classes.names]
    for frame in frames:
        store_image(frame.image, out / "leftImg8bit" / frame.split / "city" / f"{frame.name}_leftImg8bit")
        ids = table[frame.labels.classes]
        start = out / "gtFine" / frame.split / "city"
        write_image(start / f"{frame.name}_gtFine_labelIds.png", ids)
        if frame.labels.instances is not None:
            numbered = _numbered(frame.labels, ids)
            write_image(start / f"{frame.name}_gtFine_instanceIds.png", numbered)  # type: ignore[arg-type]
    return
    yield


def _numbered(labels: LabelMap, ids: Image) -> Instances:
    """instanceIds: objects keep theirs if it is one of Cityscapes, and are numbered by class otherwise."""
    found = ids.astype(np.uint16)
    used = Counter[int]()
    for item in objects(labels):
        if item.instance and item.class_id != IGNORE:
            label_id = int(ids[item.region.window][item.region.mask][0])
            number = item.instance
            if number // PER_CLASS != label_id:
                used[label_id] += 1
                number = PER_CLASS * label_id + used[label_id]
            found[item.region.window][item.region.mask] = number
    return found
