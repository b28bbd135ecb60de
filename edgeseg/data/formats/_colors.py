"""Masks in color: lists of colors as several tools write them, and colors to class ids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.dataset import Classes, decode_text, read_classes
from edgeseg.data.labelmap import IGNORE, MOST_CLASSES
from edgeseg.errors import FileError
from edgeseg.files import require_file
from edgeseg.image_header import GRAY, INDEXED, png_chunks, read_header
from edgeseg.images import Image, read_colors, read_mask
from edgeseg.spec import Rgb

LISTS = (
    "labelmap.txt",
    "class_dict.csv",
    "label_colors.txt",
    "colors.csv",
    "colormap.csv",
    "colors.txt",
    "colormap.txt",
)
VOID = ("void", "ignore", "__ignore__", "unlabeled", "unlabelled")  # names of what never counts
LABELMAP = re.compile(r"(?P<name>[^:]+):(?P<r>\d+),(?P<g>\d+),(?P<b>\d+):.*:.*")  # CVAT: label:color:parts:actions
NAME_FIRST = re.compile(r"\"?(?P<name>[^,\"]+)\"?\s*[,;]\s*(?P<r>\d+)\s*[,;]\s*(?P<g>\d+)\s*[,;]\s*(?P<b>\d+)")
COLOR_FIRST = re.compile(r"(?P<r>\d+)\s+(?P<g>\d+)\s+(?P<b>\d+)\s+(?P<name>\S.*)")


def read_colormap(path: Path) -> dict[str, Rgb]:
    """The color of each class, in order: labelmap.txt, a CSV of name, r, g, b, lines of `r g b name`, or a classes.txt.

    FileError for a line that is none of these.
    """
    text = decode_text(require_file(path, "List of colors").read_bytes())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    pattern = next((p for p in (LABELMAP, NAME_FIRST, COLOR_FIRST) if lines and p.fullmatch(lines[-1])), None)
    if pattern is None:
        classes = read_classes(path)
        return dict(zip(classes.names, classes.palette))
    colors: dict[str, Rgb] = {}
    for number, line in enumerate(lines):
        found = pattern.fullmatch(line)
        if not found and number == 0:  # the head of a table
            continue
        color = tuple(int(found[c]) for c in "rgb") if found else (256,)
        if not found or max(color) > 255:
            raise FileError(f"{path}: cannot read {line[:80]!r}.", "Expected a name and a color from 0 to 255.")
        name = found["name"].strip()
        if name in colors:
            raise FileError(f"{path} has the class {name!r} twice.", "Expected each name once.")
        colors[name] = (color[0], color[1], color[2])
    return colors


def color_of_ignored(path: Path) -> Rgb | None:
    """The color that a classes.txt gives to the id that never counts."""
    text = decode_text(path.read_bytes())
    note = re.search(r"\(id (\d+) = ignore\)", text)
    line = re.search(rf"^\s*{note[1]}\s+\S.*?\s(\d+)\s+(\d+)\s+(\d+)\s*$", text, re.MULTILINE) if note else None
    return (int(line[1]), int(line[2]), int(line[3])) if line else None


def as_classes(colors: Mapping[str, Rgb], what: str) -> tuple[Classes, dict[Rgb, int]]:
    """The classes, without what never counts, and the id of each color."""
    names = [name for name in colors if name.lower() not in VOID]
    if not 2 <= len(names) <= MOST_CLASSES:
        raise FileError(f"{what} lists {len(names)} classes.", f"Expected 2 to {MOST_CLASSES}.")
    ids = {color: names.index(name) if name in names else IGNORE for name, color in colors.items()}
    return Classes(tuple(names), tuple(colors[name] for name in names), IGNORE), ids


def holds_ids(path: Path) -> bool:
    """Whether a mask stores ids: one gray channel."""
    header = read_header(require_file(path, "Mask").read_bytes())
    return header is not None and header.color == GRAY


def palette_of(path: Path) -> list[Rgb]:
    """The palette of a PNG; empty if it has none."""
    data = require_file(path, "Mask").read_bytes()
    header = read_header(data)
    if header is None or header.color != INDEXED:
        return []
    body = next((body for kind, body, _ in png_chunks(data) if kind == b"PLTE"), b"")
    return [(body[i], body[i + 1], body[i + 2]) for i in range(0, len(body) - 2, 3)]


def read_ids(path: Path, count: int) -> Image:
    """A mask of ids below `count`, or IGNORE; FileError for others."""
    ids = read_mask(path)
    check_ids(path, ids, count)
    return ids


def check_ids(path: Path, ids: Image, count: int) -> None:
    wrong = ids[(ids >= count) & (ids != IGNORE)]
    if wrong.size:
        raise FileError(f"Mask {path} holds class id {int(wrong[0])}.", f"There are {count} classes, 0 to {count - 1}.")


def codes(image: Image) -> NDArray[np.uint32]:
    """[H, W] of r * 65536 + g * 256 + b."""
    wide = image.astype(np.uint32)
    return wide[..., 0] << np.uint32(16) | wide[..., 1] << np.uint32(8) | wide[..., 2]


def by_color(path: Path, ids: Mapping[Rgb, int], hint: str) -> Image:
    """The class map of a mask in color; FileError for a color that has no class."""
    found = codes(read_colors(path))
    known = np.array(sorted(r << 16 | g << 8 | b for r, g, b in ids), np.uint32)
    table = np.array([ids[(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255)] for c in known], np.uint8)
    place = np.searchsorted(known, found).clip(0, len(known) - 1)
    strange = found[known[place] != found]
    if strange.size:
        code = int(strange[0])
        raise FileError(f"Mask {path} has the color {code >> 16} {code >> 8 & 255} {code & 255}.", hint)
    mask: Image = table[place]
    return mask


def colored(ids: Image, palette: Sequence[Rgb], ignore: Rgb = (0, 0, 0)) -> Image:
    """[H, W, 3] uint8 BGR, as write_image takes it, of a class map."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    table[IGNORE] = ignore
    return np.ascontiguousarray(table[ids][..., ::-1])


def free_color(palette: Sequence[Rgb]) -> Rgb:
    """One for what is ignored: black if no class has it."""
    return next(c for i in range(256) if (c := (i, i, i)) not in palette)
