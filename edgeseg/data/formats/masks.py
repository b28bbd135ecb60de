"""Folders of images and masks: class ids, or one color per class.

    SRC/[SPLIT/]images/NAME.jpg   SRC/[SPLIT/]masks/NAME.png (or NAME_mask.png, NAME_labelIds.png ...)
    SRC/classes.txt               names and colors, where there is one; or labelmap.txt, class_dict.csv, colors.csv ...

Masks with one channel hold class ids; 0 and 255 alone mean background and object. Masks in color are read by the colors
of that list, or of a file that is given; without one, each color found becomes a class. SRC/[SPLIT/]instances/NAME.png
has the ids of objects, if it is there: a dataset of edgeseg is of this format, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edgeseg.data.dataset import SPLITS, Classes, read_classes
from edgeseg.data.formats import KEPT, Frame, LabeledFrame, Labels, _colors
from edgeseg.data.formats._legend import Legend, discover, objects_only, stored_ids
from edgeseg.data.labelmap import IGNORE, LabelMap
from edgeseg.data.store import store_image
from edgeseg.errors import FileError
from edgeseg.files import write_bytes
from edgeseg.images import IMAGE_SUFFIXES, palette_png, read_instances, write_image

TITLE = "folders of images and masks"
OBJECTS = KEPT
IMAGES = ("images", "image", "img", "imgs")
MASKS = ("masks", "mask", "labels", "annotations", "gt")
SUFFIXES = ("", "_mask", "_masks", "-mask", "_label", "_labels", "_labelIds", "_gtFine_labelIds", "_gt", "_seg", "_L")


def probe(source: Path) -> bool:
    return source.is_dir() and any(True for pair in _pairs(source) for _ in _frames(*pair))


def read(source: Path) -> Labels:
    stored = source / "classes.txt"
    listed = next((source / name for name in _colors.LISTS if (source / name).is_file()), None)
    if stored.is_file():
        classes = read_classes(stored)
        ids = {color: i for i, color in enumerate(classes.palette)}
        if (color := _colors.color_of_ignored(stored)) is not None:
            ids.setdefault(color, IGNORE)
        return _read(source, Legend(classes, ids, classes.ignore_index))
    return read_with_colors(source, listed) if listed else _read(source, None)


def read_with_colors(source: Path, colors: Path) -> Labels:
    """`colors`: a file with the name and color of each class."""
    return _read(source, Legend(*_colors.as_classes(_colors.read_colormap(colors), str(colors)), by_color=True))


def _read(source: Path, legend: Legend | None) -> Labels:
    folders = list(_pairs(source))
    frames = [frame for split, images, masks in folders for frame in _frames(split, images, masks)]
    if not frames and all(images == masks for _, images, masks in folders):
        raise FileError(
            f"{source} has no images and masks.", "Expected SRC/images and SRC/masks, or SRC/train/images ..."
        )
    if not frames:
        raise FileError(
            f"{source}: no image has a mask of the same name.", f"Endings tried: {', '.join(SUFFIXES[1:])}."
        )
    discovered = legend is None
    legend = legend or discover(path for _, _, _, path in frames)
    classes = legend.classes
    return Labels(
        Classes(classes.names, classes.palette, IGNORE),
        [LabeledFrame(name, image, partial(_mask, mask, legend), split) for split, name, image, mask in frames],
        tuple(_left_over(folders, {path for _, _, image, mask in frames for path in (image, mask)})),
        from_colors=discovered and classes.names[0].startswith("color_"),
    )


def _left_over(folders: Sequence[tuple[str, Path, Path]], used: set[Path]) -> Iterator[str]:
    """What has no counterpart, where images and masks lie apart."""
    apart = [(images, masks) for _, images, masks in folders if images != masks]
    alone = sum(path not in used for images, _ in apart for path in _images(images.rglob("*")))
    if alone:
        yield f"images without a mask are left out: {alone}"
    alone = sum(path not in used for _, masks in apart for path in masks.rglob("*.png"))
    if alone:
        yield f"masks without an image are left out: {alone}"


def _images(paths: Iterable[Path]) -> list[Path]:
    return sorted(p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file() and p.name[0] != ".")


def _pairs(source: Path) -> Iterator[tuple[str, Path, Path]]:
    """(split, folder of images, folder of masks), which may be the same one: NAME.jpg beside NAME_mask.png."""
    for split in ("", *SPLITS):
        images = next((source / split / name for name in IMAGES if (source / split / name).is_dir()), None)
        masks = next((source / split / name for name in MASKS if (source / split / name).is_dir()), None)
        if images and masks:
            yield split, images, masks
        elif (images or source / split).is_dir():
            yield split, images or source / split, images or source / split


def _frames(split: str, images: Path, masks: Path) -> Iterator[tuple[str, str, Path, Path]]:
    """(split, name, image, mask) of every image that has a mask, also in folders of the same name."""
    together = images == masks
    paths = images.glob("*") if together else images.rglob("*")
    for image in _images(paths):
        folder = image.parent.relative_to(images)
        tries = (masks / folder / f"{image.stem}{ending}.png" for ending in SUFFIXES[together:])
        if mask := next((m for m in tries if m.is_file()), None):
            yield split, (folder / image.stem).as_posix(), image, mask


def _mask(path: Path, legend: Legend) -> LabelMap:
    stored = None if legend.by_color and _colors.palette_of(path) else stored_ids(path)
    count = len(legend.classes.names)
    if stored is None:
        found = _colors.by_color(path, legend.ids, "Give it a class: a line in classes.txt, or a file with --colors.")
    elif objects_only(stored) and legend.ignored != IGNORE:
        found = np.minimum(stored, np.uint8(1))
    else:
        found = stored if legend.ignored is None else np.where(stored == legend.ignored, np.uint8(IGNORE), stored)
        _colors.check_ids(path, found, count)
    objects = path.parent.parent / "instances" / path.name
    return LabelMap(found, read_instances(objects) if objects.is_file() else None)


def write(frames: Iterable[Frame], classes: Classes, out: Path) -> Sequence[str]:
    """The layout of a dataset of edgeseg; masks have a palette, which stores ids and shows colors."""
    write_bytes(out / "classes.txt", classes.text().encode())
    palette = [*classes.palette, *((0, 0, 0) for _ in range(IGNORE + 1 - len(classes.palette)))]
    for frame in frames:
        folder = out / frame.split
        store_image(frame.image, folder / "images" / frame.name)
        write_bytes(folder / "masks" / f"{frame.name}.png", palette_png(frame.labels.classes, palette))
        if frame.labels.instances is not None:
            write_image(folder / "instances" / f"{frame.name}.png", frame.labels.instances)  # type: ignore[arg-type]
    return ()
