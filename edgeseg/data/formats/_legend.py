"""Which ids and colors of a folder's masks mean which class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeseg.data.dataset import Classes
from edgeseg.data.formats import _colors
from edgeseg.data.labelmap import IGNORE
from edgeseg.errors import FileError
from edgeseg.images import Image, read_colors, read_mask
from edgeseg.spec import Rgb, default_palette

MOST_COLORS = 64  # a mask with more colors is a photo, or was stored as JPEG


@dataclass(frozen=True)
class Legend:
    """`ids`: of the colors. `ignored`: the stored id of pixels that never count. `by_color`: also where a palette could
    give ids: the list is of colors, in whatever order the indices are."""

    classes: Classes
    ids: dict[Rgb, int]
    ignored: int | None = None
    by_color: bool = False


def stored_ids(path: Path) -> Image | None:
    """The mask's own class ids, [H, W] uint8; None where it stores colors."""
    try:
        ids = read_mask(path)
    except FileError:
        rgb = read_colors(path)
        if (rgb[..., :2] != rgb[..., 1:]).any():
            return None
        ids = np.ascontiguousarray(rgb[..., 0])  # gray, stored in three channels
    return ids


def objects_only(ids: Image) -> bool:
    """Whether a mask holds nothing but 0 and 255."""
    return set(np.flatnonzero(np.bincount(ids.ravel(), minlength=256)).tolist()) == {0, IGNORE}


def discover(masks: Iterator[Path]) -> Legend:
    """The classes that the masks use: ids up to the largest, or one for each color."""
    largest, colors = 0, set[int]()
    for path in masks:
        try:
            ids = stored_ids(path)
            codes = np.unique(_colors.codes(read_colors(path))) if ids is None else None
        except FileError:
            continue  # named when the frame is read
        if ids is not None:
            used = np.flatnonzero(np.bincount(ids.ravel(), minlength=IGNORE)[:IGNORE])
            largest = max(largest, int(used[-1]) if used.size else 0)
        elif codes is not None:
            colors.update(codes[: MOST_COLORS + 1].tolist())
        if len(colors) > MOST_COLORS:
            raise FileError(
                f"Mask {path} brings the masks to more than {MOST_COLORS} colors.",
                "A mask has one color for each class. Were the masks stored as JPEG? Export them as PNG.",
            )
    if colors:
        palette = tuple((c >> 16, c >> 8 & 255, c & 255) for c in sorted(colors))
        found = Classes(tuple(f"color_{r:02x}{g:02x}{b:02x}" for r, g, b in palette), palette, IGNORE)
    else:
        count = max(2, largest + 1)
        found = Classes(tuple(f"class{i}" for i in range(count)), default_palette(count), IGNORE)
    return Legend(found, {color: i for i, color in enumerate(found.palette)})
