"""Pascal VOC (http://host.robots.ox.ac.uk/pascal/VOC/), and CVAT's "segmentation mask", which is laid out the same way.

    SRC/JPEGImages/NAME.jpg  SRC/SegmentationClass/NAME.png  SRC/SegmentationObject/NAME.png (if objects are told apart)
    SRC/ImageSets/Segmentation/train.txt ...  SRC/labelmap.txt (CVAT: label:r,g,b:parts:actions)

Without labelmap.txt, masks hold the ids of VOC's 21 classes, or its colors. 255 and its color (224, 224, 192), VOC's
outlines, are ignored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from edgeseg.data.dataset import Classes, decode_text
from edgeseg.data.formats import KEPT, Frame, LabeledFrame, Labels, _colors, _files
from edgeseg.data.labelmap import IGNORE, LabelMap, objects
from edgeseg.data.store import store_image
from edgeseg.errors import FileError
from edgeseg.files import write_bytes
from edgeseg.images import Image, palette_png, read_colors
from edgeseg.spec import Rgb

TITLE = "Pascal VOC"
OBJECTS = KEPT
NAMES = """background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person
pottedplant sheep sofa train tvmonitor""".split()
OUTLINE = (224, 224, 192)
SETS = {"train": "train", "val": "val", "test": "test"}


def probe(source: Path) -> bool:
    return (source / "SegmentationClass").is_dir()


def read(source: Path) -> Labels:
    masks = sorted((source / "SegmentationClass").rglob("*.png"))
    if not masks:
        raise FileError(f"{source} has no SegmentationClass/*.png.", "Expected Pascal VOC.")
    listed = source / "labelmap.txt"
    colors = _colors.read_colormap(listed) if listed.is_file() else dict(zip(NAMES, colormap(len(NAMES))))
    classes, ids = _colors.as_classes(colors, str(listed))
    ids = {OUTLINE: IGNORE, **ids}
    splits = _splits(source)
    frames = []
    for mask in masks:
        name = mask.relative_to(source / "SegmentationClass").with_suffix("").as_posix()
        image = _files.image_of(source / "JPEGImages" / name) or source / "JPEGImages" / f"{name}.jpg"
        read_mask = partial(_labels, source, name, list(colors), classes, ids)
        frames.append(LabeledFrame(name, image, read_mask, splits.get(name, "")))
    losses = ("boxes of Annotations/*.xml are left out",) if (source / "Annotations").is_dir() else ()
    return Labels(classes, frames, losses)


def colormap(count: int) -> list[Rgb]:
    """VOC's colors: the bits of an id, from the lowest on, go in turn to the highest bits of red, green and blue."""

    def color(i: int) -> Rgb:
        r, g, b = (sum((i >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3))
        return r, g, b

    return [color(i) for i in range(count)]


def _splits(source: Path) -> dict[str, str]:
    """The split of each frame in only one of train, val and test."""
    found: dict[str, str] = {}
    for split in SETS:
        path = source / "ImageSets" / "Segmentation" / f"{split}.txt"
        if path.is_file():
            for line in decode_text(path.read_bytes()).splitlines():
                found.setdefault(line.strip(), split)
    return found


def _labels(source: Path, name: str, order: list[str], classes: Classes, ids: dict[Rgb, int]) -> LabelMap:
    path = source / "SegmentationClass" / f"{name}.png"
    palette = _colors.palette_of(path)
    of_index = [classes.names.index(n) if n in classes.names else IGNORE for n in order]
    if _colors.holds_ids(path) or (palette and palette[: len(order)] == colormap(len(order))):
        stored = _colors.read_ids(path, len(order))
        mask: Image = np.array([*of_index, *[IGNORE] * (256 - len(of_index))], np.uint8)[stored]
    else:
        mask = _colors.by_color(path, ids, "Give it a line in labelmap.txt: name:r,g,b::")
    of_objects = source / "SegmentationObject" / f"{name}.png"
    return LabelMap(mask, _objects(of_objects, mask) if of_objects.is_file() else None)


def _objects(path: Path, mask: Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    """Ids from the palette's indices, or, in color, numbered in the order of VOC's colors."""
    if _colors.holds_ids(path) or _colors.palette_of(path):
        found = _colors.read_ids(path, 256).astype(np.uint16)
    else:
        codes = _colors.codes(read_colors(path))
        table = {r << 16 | g << 8 | b: i for i, (r, g, b) in enumerate(colormap(256))}
        values, place = np.unique(codes, return_inverse=True)
        numbers = np.array([table.get(int(v), 256 + i) for i, v in enumerate(values)], np.uint16)
        found = numbers[place].reshape(codes.shape)
    if found.shape != mask.shape:
        raise FileError(f"{path} is not as large as its class mask.", "Export the masks again.")
    found[mask == IGNORE] = 0
    return found


def write(frames: Iterable[Frame], classes: Classes, out: Path) -> Iterator[str]:
    """Palettes have VOC's colors, in which index and color say the same to every reader."""
    colors = colormap(256)
    void = "".join(f"__ignore__:{','.join(map(str, OUTLINE))}::\n")
    lines = [f"{name.replace(':', ' ')}:{r},{g},{b}::\n" for name, (r, g, b) in zip(classes.names, colors)]
    write_bytes(out / "labelmap.txt", ("# label:color_rgb:parts:actions\n" + "".join(lines) + void).encode())
    palette = [*colors[:IGNORE], OUTLINE]
    sets, used = defaultdict[str, list[str]](list), set[str]()
    dropped = 0
    for frame in frames:
        name = frame.name if frame.name not in used else f"{frame.name}_{frame.split}"
        used.add(name)
        sets[frame.split].append(name)
        store_image(frame.image, out / "JPEGImages" / name)
        write_bytes(out / "SegmentationClass" / f"{name}.png", palette_png(frame.labels.classes, palette))
        if frame.labels.instances is not None:
            numbered, lost = _numbered(frame.labels)
            dropped += lost
            write_bytes(out / "SegmentationObject" / f"{name}.png", palette_png(numbered, palette))
    for split, names in sets.items():
        write_bytes(out / "ImageSets" / "Segmentation" / f"{split}.txt", ("\n".join(names) + "\n").encode())
    if dropped:
        yield f"objects beyond {IGNORE - 1} of a frame: {dropped}"


def _numbered(labels: LabelMap) -> tuple[Image, int]:
    """Objects as bytes, with their own ids where these fit, and how many there is no id for."""
    assert labels.instances is not None
    if labels.instances.max() < IGNORE:
        return np.where(labels.classes == IGNORE, np.uint8(IGNORE), labels.instances.astype(np.uint8)), 0
    found = np.where(labels.classes == IGNORE, np.uint8(IGNORE), np.uint8(0))
    kept = [item for item in objects(labels) if item.instance and item.class_id != IGNORE]
    for number, item in enumerate(kept[: IGNORE - 1], 1):
        found[item.region.window][item.region.mask] = number
    return found, max(0, len(kept) - (IGNORE - 1))
