"""Mask files: unreadable, of another encoding, with ids outside the classes, empty."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
from edgeseg.images import MAX_PIXELS, Image, decode_mask, read_mask
from edgeseg.results.check import Finding

ERRORS = ("unreadable-mask", "mask-encoding", "unknown-id", "empty-mask", "exif-ambiguous")
USUAL_CLASSES = 3  # in half of the masks: then one with a single class is strange


@dataclass(frozen=True)
class _Seen:
    """`classes`: how many are in the mask, None where it cannot be read. `single`: what there is to say if others hold
    more than one."""

    findings: list[Finding]
    split: str = ""
    classes: int | None = None
    single: Finding | None = None


class Masks(Check):
    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self.single: dict[str, list[Finding]] = defaultdict(list)
        self.counts: Counter[int] = Counter()

    def look(self, sample: Sample) -> _Seen:
        if sample.labels_problem:
            return _Seen([_finding(_kind(sample), sample, sample.labels_problem.what)])
        if sample.labels is None:
            return _Seen([])
        known, ignored = self._count(sample)
        findings, present = list(self._findings(sample, known, ignored)), np.flatnonzero(known)
        if len(present) != 1:
            return _Seen(findings, sample.split, len(present))
        name = self.classes.names[int(present[0])]
        return _Seen(
            findings, sample.split, 1, _finding("single-class", sample, f"{name} alone; other masks hold more classes.")
        )

    def _count(self, sample: Sample) -> tuple[NDArray[np.int64], int]:
        """The pixels of each class, and those to ignore."""
        pixels = sample.counts
        ignored = 0 if self.classes.ignore_index is None else int(pixels[self.classes.ignore_index])
        known = pixels[: len(self.classes.names)].copy()
        if self.classes.ignore_index is not None and self.classes.ignore_index < len(known):
            known[self.classes.ignore_index] = 0
        return known, ignored

    def _findings(self, sample: Sample, known: NDArray[np.int64], ignored: int) -> Iterator[Finding]:
        if how := compact_encoding(sample.mask_data):
            what = f"It is stored {how}: edgeseg reads ids, many programs something else."
            yield _finding("mask-palette", sample, what)
        pixels = sample.counts
        if unknown := int(pixels.sum() - known.sum() - ignored):
            ids = ", ".join(
                str(i) for i in np.flatnonzero(pixels) if i >= len(known) and i != self.classes.ignore_index
            )
            what = f"{unknown} pixels have the id {ids[:60]}, outside the {len(known)} classes."
            yield _finding("unknown-id", sample, what)
        if not known.any() and not unknown:
            yield _finding("empty-mask", sample, "Every pixel is ignored.")

    def frame(self, seen: _Seen) -> Iterable[Finding]:
        if seen.classes is not None:
            self.counts[seen.classes] += 1
        if seen.single:
            self.single[seen.split].append(seen.single)
        return seen.findings

    def end(self) -> Iterable[Finding]:
        """Masks of one class, where that is unusual."""
        seen = np.repeat(list(self.counts), list(self.counts.values()))
        if len(seen) and np.median(seen) >= USUAL_CLASSES:
            for findings in self.single.values():
                yield from findings


def _finding(kind: str, sample: Sample, what: str) -> Finding:
    return Finding(kind=kind, file=sample.mask_name, what=what, split=sample.split, others=(sample.name,))


def _kind(sample: Sample) -> str:
    """What is wrong with a mask that was refused."""
    try:
        decode_mask(sample.mask_data, Path(sample.mask_name))
    except FileError:
        return "mask-encoding" if other_encoding(sample.mask_data) else "unreadable-mask"
    return "exif-ambiguous"  # by itself it can be read


def compact_encoding(data: bytes) -> str:
    """How a readable mask is stored, if not as 8-bit gray; "" if it is."""
    if not data.startswith(PNG) or len(data) < 26:
        return ""
    depth, color = data[24], data[25]
    return "with a palette" if color != GRAY else f"in {depth} bits" if depth < 8 else ""


def other_encoding(data: bytes) -> bool:
    """Whether a mask that was refused is an image of another kind, and not a damaged one."""
    header = read_header(data)
    return header is not None and header.pixels <= MAX_PIXELS and _stored(data) is not None


def _stored(data: bytes) -> NDArray[Any] | None:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
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
        stored = _stored(path.read_bytes())
        ids_or_none = None if stored is None else as_ids(stored, context.classes)
        if ids_or_none is None:
            return ""
        ids = ids_or_none
    set_aside(path, context, keep=True)
    write_png(path, ids)
    return f"{finding.file}: stored as 8-bit ids"
