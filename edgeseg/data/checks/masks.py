"""Mask files: unreadable, of another encoding, with ids outside the classes, empty."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.checks import Check, Context, Sample
from edgeseg.data.checks._fixing import set_aside, write_png
from edgeseg.data.dataset import Classes
from edgeseg.errors import FileError
from edgeseg.image_header import GRAY, PNG, read_header
from edgeseg.images import MAX_PIXELS, Image, read_mask
from edgeseg.results.check import Finding

ERRORS = ("unreadable-mask", "mask-encoding", "unknown-id", "empty-mask", "exif-ambiguous")
USUAL_CLASSES = 3  # in half of the masks: then one with a single class is strange


class Masks(Check):
    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self.single: dict[str, list[Finding]] = defaultdict(list)
        self.counts: Counter[int] = Counter()

    def frame(self, sample: Sample) -> Iterable[Finding]:
        def finding(kind: str, what: str) -> Finding:
            return Finding(kind=kind, file=sample.mask_name, what=what, split=sample.split, others=(sample.name,))

        if sample.labels_problem:
            what = sample.labels_problem.what
            yield finding(_kind(sample), what)
        if sample.labels is None:
            return
        if how := compact_encoding(sample.mask):
            yield finding("mask-palette", f"It is stored {how}: edgeseg reads ids, many programs something else.")
        pixels = np.bincount(sample.labels.ravel(), minlength=256)
        ignored = 0 if self.classes.ignore_index is None else int(pixels[self.classes.ignore_index])
        known = pixels[: len(self.classes.names)].copy()
        if self.classes.ignore_index is not None and self.classes.ignore_index < len(known):
            known[self.classes.ignore_index] = 0
        if unknown := int(pixels.sum() - known.sum() - ignored):
            ids = ", ".join(
                str(i) for i in np.flatnonzero(pixels) if i >= len(known) and i != self.classes.ignore_index
            )
            yield finding("unknown-id", f"{unknown} pixels have the id {ids[:60]}, outside the {len(known)} classes.")
        present = np.flatnonzero(known)
        self.counts[len(present)] += 1
        if not len(present) and not unknown:
            yield finding("empty-mask", "Every pixel is ignored.")
        elif len(present) == 1:
            name = self.classes.names[int(present[0])]
            self.single[sample.split].append(finding("single-class", f"{name} alone; other masks hold more classes."))

    def end(self) -> Iterable[Finding]:
        """Masks of one class, where that is unusual."""
        seen = np.repeat(list(self.counts), list(self.counts.values()))
        if len(seen) and np.median(seen) >= USUAL_CLASSES:
            for findings in self.single.values():
                yield from findings


def _kind(sample: Sample) -> str:
    """What is wrong with a mask that was refused."""
    if not sample.mask.is_file():
        return "unreadable-mask"
    try:
        read_mask(sample.mask)
    except FileError:
        return "mask-encoding" if other_encoding(sample.mask) else "unreadable-mask"
    return "exif-ambiguous"  # by itself it can be read


def compact_encoding(path: Path) -> str:
    """How a readable mask is stored, if not as 8-bit gray; "" if it is."""
    with path.open("rb") as file:
        start = file.read(33)  # header only: the chunks behind it are not needed
    if not start.startswith(PNG) or len(start) < 26:
        return ""
    depth, color = start[24], start[25]
    return "with a palette" if color != GRAY else f"in {depth} bits" if depth < 8 else ""


def other_encoding(path: Path) -> bool:
    """Whether a mask that was refused is an image of another kind, and not a damaged one."""
    header = read_header(path.read_bytes())
    return header is not None and header.pixels <= MAX_PIXELS and _stored(path) is not None


def _stored(path: Path) -> NDArray[Any] | None:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None or (image.ndim == 2 and image.dtype == np.uint8) else image


def as_ids(stored: NDArray[Any], classes: Classes) -> Image | None:
    """The class ids that a mask of 16 bits, with equal channels or in the classes' colors stands for; None where one
    pixel is none of these."""
    if stored.ndim == 2:
        return stored.astype(np.uint8) if stored.max() < 256 else None
    if stored.dtype != np.uint8 or stored.shape[2] not in (3, 4):
        return None
    b, g, r = (stored[..., i] for i in range(3))
    table = {rgb: i for i, rgb in enumerate(classes.palette)}
    known = [*range(len(classes.names)), *([] if classes.ignore_index is None else [classes.ignore_index])]
    if (b == g).all() and (g == r).all() and np.isin(b, known).all() and len(np.unique(b)) > 1:
        return np.ascontiguousarray(b)
    if len(table) < len(classes.palette):
        return None  # two classes of one color
    code = r.astype(np.uint32) << 16 | g.astype(np.uint32) << 8 | b
    out, found = np.zeros(b.shape, np.uint8), np.zeros(b.shape, bool)
    for (red, green, blue), index in table.items():
        here = code == (red << 16 | green << 8 | blue)
        out[here], found[here] = index, True
    return out if found.all() else None


def open(context: Context) -> Check:
    return Masks(context.classes)


def fix(finding: Finding, context: Context) -> str:
    """Store a mask as 8-bit ids, where it is certain which."""
    path = context.root / finding.file
    if finding.kind not in ("mask-palette", "mask-encoding") or not path.exists():
        return ""
    image = context.root / finding.others[0]
    if finding.kind == "mask-palette":
        ids = read_mask(path, image)
    else:
        stored = _stored(path)
        ids_or_none = None if stored is None else as_ids(stored, context.classes)
        if ids_or_none is None:
            return ""
        ids = ids_or_none
    set_aside(path, context, keep=True)
    write_png(path, ids)
    return f"{finding.file}: stored as 8-bit ids"
