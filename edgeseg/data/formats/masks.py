"""Folders of images and masks: class ids, or one color per class.

    SRC/[SPLIT/]images/NAME.jpg   SRC/[SPLIT/]masks/NAME.png (or NAME_mask.png, NAME_labelIds.png ...)
    SRC/classes.txt               names and colors, where there is one

Masks with one channel hold class ids; 0 and 255 alone mean background and object. Masks in color are read by the colors
of classes.txt, or, without one, each color found becomes a class.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from edgeseg.data.dataset import SPLITS, Classes, read_classes
from edgeseg.data.formats import IGNORE, LabeledFrame, Labels
from edgeseg.errors import FileError
from edgeseg.images import IMAGE_SUFFIXES, Image, read_image, read_mask
from edgeseg.spec import Rgb, default_palette

TITLE = "folders of images and masks"
IMAGES = ("images", "image", "img", "imgs")
MASKS = ("masks", "mask", "labels", "annotations", "gt")
SUFFIXES = ("", "_mask", "_labelIds", "_gtFine_labelIds", "_label", "_L", "-mask")
MOST_COLORS = 64  # a mask with more colors is a photo, or was stored as JPEG


def probe(source: Path) -> bool:
    return any(True for _ in _pairs(source)) if source.is_dir() else False


def read(source: Path) -> Labels:
    folders = list(_pairs(source))
    if not folders:
        raise FileError(
            f"{source} has no images and masks.", "Expected SRC/images and SRC/masks, or SRC/train/images ..."
        )
    frames = [frame for split, images, masks in folders for frame in _frames(split, images, masks)]
    if not frames:
        raise FileError(
            f"{source}: no image has a mask of the same name.", f"Endings tried: {', '.join(SUFFIXES[1:])}."
        )
    stored = source / "classes.txt"
    classes = read_classes(stored) if stored.is_file() else _discover(path for _, _, _, path in frames)
    colors = {color: i for i, color in enumerate(classes.palette)}
    return Labels(
        classes,
        [
            LabeledFrame(name, image, partial(_mask, mask, colors, len(classes.names)), split)
            for split, name, image, mask in frames
        ],
    )


def _pairs(source: Path) -> Iterator[tuple[str, Path, Path]]:
    """(split, folder of images, folder of masks)."""
    for split in ("", *SPLITS):
        images = next((source / split / name for name in IMAGES if (source / split / name).is_dir()), None)
        masks = next((source / split / name for name in MASKS if (source / split / name).is_dir()), None)
        if images and masks:
            yield split, images, masks


def _frames(split: str, images: Path, masks: Path) -> Iterator[tuple[str, str, Path, Path]]:
    """(split, name, image, mask) of every image that has a mask."""
    for image in sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
        mask = next((m for ending in SUFFIXES if (m := masks / f"{image.stem}{ending}.png").is_file()), None)
        if mask:
            yield split, image.stem, image, mask


def _colors(path: Path) -> Image | None:
    """The mask as [H, W, 3] uint8 RGB if it is in color, else None."""
    data = read_image(path)
    gray = (data[..., 0] == data[..., 1]).all() and (data[..., 1] == data[..., 2]).all()
    return None if gray else np.ascontiguousarray(data[..., ::-1], np.uint8)


def _ids(path: Path) -> Image | None:
    """The mask's own class ids, [H, W] uint8; None where it stores colors."""
    try:
        ids = read_mask(path)
    except FileError:
        if _colors(path) is None:
            raise
        return None
    return np.where(ids == IGNORE, np.uint8(1), ids) if set(np.unique(ids)) == {0, IGNORE} else ids


def _discover(masks: Iterator[Path]) -> Classes:
    """The classes that the masks use: ids up to the largest, or one for each color."""
    largest, colors = 0, set[Rgb]()
    for path in masks:
        ids = _ids(path)
        if ids is not None:
            largest = max(largest, *(int(i) for i in np.unique(ids) if i != IGNORE), 0)
            continue
        image = _colors(path)
        assert image is not None
        colors |= _used(image)
        if len(colors) > MOST_COLORS:
            raise FileError(
                f"Mask {path} brings the masks to more than {MOST_COLORS} colors.",
                "A mask has one color for each class. Were the masks stored as JPEG? Export them as PNG.",
            )
    if colors:
        palette = tuple(sorted(colors))
        return Classes(tuple(f"color_{r:02x}{g:02x}{b:02x}" for r, g, b in palette), palette, IGNORE)
    count = max(2, largest + 1)
    return Classes(tuple(f"class{i}" for i in range(count)), default_palette(count), IGNORE)


def _used(image: Image) -> set[Rgb]:
    """The colors of an image [H, W, 3] uint8, not many more than are allowed; a row at a time takes little memory."""
    used: set[Rgb] = set()
    for row in image:
        codes = np.unique(row @ np.array([1 << 16, 1 << 8, 1], np.uint32))
        used |= {(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in codes}
        if len(used) > MOST_COLORS:
            break
    return used


def _mask(path: Path, colors: dict[Rgb, int], classes: int) -> Image:
    ids = _ids(path)
    if ids is None:
        image = _colors(path)
        assert image is not None
        ids = np.full(image.shape[:2], IGNORE, np.uint8)
        for color, i in colors.items():
            ids[(image == np.array(color, np.uint8)).all(2)] = i
        if (ids == IGNORE).any():
            r, g, b = image[ids == IGNORE][0].tolist()
            raise FileError(f"Mask {path} has the color {r} {g} {b}.", "Give it a class: a line in classes.txt.")
        return ids
    too_large = ids[(ids >= classes) & (ids != IGNORE)]
    if too_large.size:
        raise FileError(
            f"Mask {path} holds class id {int(too_large[0])}.", f"There are {classes} classes, 0 to {classes - 1}."
        )
    return ids
