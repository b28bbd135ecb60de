"""A sheet of labeled frames: each with its labels drawn in color, and a legend of all classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edgeseg.data.dataset import Classes
from edgeseg.evaluation.pictures import colors
from edgeseg.images import Image

FONT = cv2.FONT_HERSHEY_SIMPLEX
PAPER, INK = (32, 32, 32), (235, 235, 235)
GAP, LINE = 6, 22  # pixels between tiles; height of a line of text
ALPHA = 0.55  # of the labels over the frame
HATCH = 8  # pixels between the stripes over ignored pixels
UNTINTED = "background"


@dataclass(frozen=True)
class Tile:
    """A frame [H, W, 3] uint8 BGR, its mask [H, W] uint8 and a line of text; no mask: the frame as it is."""

    caption: str
    frame: Image
    mask: Image | None = None


def labeled_sheet(tiles: Sequence[Tile], classes: Classes, width: int = 320, columns: int = 4) -> Image:
    """[H, W, 3] uint8 BGR: the tiles in rows of `columns`, each at most `width` pixels wide, above a legend where any
    has labels.

    Ignored pixels are striped; a class called "background" is left as it is.
    """
    columns = min(columns, len(tiles))
    height = round(width * 0.75)
    rows = []
    for start in range(0, len(tiles), columns):
        drawn = [_tile(tile, classes, width, height) for tile in tiles[start : start + columns]]
        used = max(np.flatnonzero((tile != PAPER).any((1, 2)))[-1] for tile in drawn) + 1  # wide frames leave a rest
        row = np.full((used + GAP, columns * (width + GAP) + GAP, 3), PAPER, np.uint8)
        for column, tile in enumerate(drawn):
            left = GAP + column * (width + GAP)
            row[GAP:, left : left + width] = tile[:used]
        rows.append(row)
    if any(tile.mask is not None for tile in tiles):
        rows.append(_legend(classes, rows[0].shape[1]))
    return np.vstack(rows)


def _tile(tile: Tile, classes: Classes, width: int, height: int) -> Image:
    out = np.full((height + LINE, width, 3), PAPER, np.uint8)
    scale = min(width / tile.frame.shape[1], height / tile.frame.shape[0])
    size = (max(1, round(tile.frame.shape[1] * scale)), max(1, round(tile.frame.shape[0] * scale)))
    picture = np.asarray(cv2.resize(tile.frame, size, interpolation=cv2.INTER_AREA), np.uint8)
    if tile.mask is not None:
        picture = _tinted(picture, cv2.resize(tile.mask, size, interpolation=cv2.INTER_NEAREST), classes)  # type: ignore[arg-type]
    out[LINE : LINE + size[1], : size[0]] = picture
    _write(out, tile.caption, 2, LINE - 7)
    return out


def _tinted(frame: Image, mask: Image, classes: Classes) -> Image:
    shown = mask != classes.ignore_index
    if UNTINTED in classes.names:
        shown &= mask != classes.names.index(UNTINTED)
    tint = cv2.addWeighted(frame, 1 - ALPHA, colors(mask, classes.palette), ALPHA, 0)
    out = np.where(shown[..., None], tint, frame)
    if classes.ignore_index is not None:
        y, x = np.indices(mask.shape)
        out[(mask == classes.ignore_index) & ((x + y) % HATCH < 2)] = INK
    return np.ascontiguousarray(out, np.uint8)


def _legend(classes: Classes, width: int) -> Image:
    """Color chips and names, in as many lines as they need."""
    entries = [(name, (b, g, r)) for name, (r, g, b) in zip(classes.names, classes.palette)]
    if classes.ignore_index is not None:
        entries.append(("ignored (striped)", INK))
    places, left, line = [], GAP, 0
    for name, _ in entries:
        needed = LINE + cv2.getTextSize(name, FONT, 0.45, 1)[0][0] + 2 * GAP
        if left + needed > width and left > GAP:
            left, line = GAP, line + 1
        places.append((left, line))
        left += needed
    out = np.full((LINE * (line + 1) + GAP, width, 3), PAPER, np.uint8)
    for (name, color), (left, line) in zip(entries, places):
        top = line * LINE + GAP // 2
        cv2.rectangle(out, (left, top + 3), (left + 13, top + 16), color, cv2.FILLED)
        _write(out, name, left + LINE - 2, top + LINE - 8)
    return out


def _write(out: Image, text: str, left: int, bottom: int) -> None:
    """OpenCV's letters are ASCII: others become question marks."""
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(out, plain, (left, bottom), FONT, 0.45, INK, 1, cv2.LINE_AA)
