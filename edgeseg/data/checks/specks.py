"""Specks: connected regions of a few pixels, where a tool or a hand slipped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from edgeseg.data.checks import Check, Context, Sample
from edgeseg.data.checks._outliers import limit_above
from edgeseg.images import Image
from edgeseg.results.check import Box, Finding

ERRORS = ()
SMALLEST = 1 / 25_000  # of the frame, and at least
PIXELS = 4
DEVIATIONS = 4.0
AT_LEAST = 3  # specks of a frame that is reported


@dataclass(frozen=True)
class _Specks:
    split: str
    file: str
    image: str
    count: int
    box: Box


class Specks(Check):
    def __init__(self, ignore: int | None) -> None:
        self.ignore = ignore
        self.seen: list[_Specks] = []
        self.counts: list[int] = []

    def look(self, sample: Sample) -> _Specks | None:
        if sample.labels is None:
            return None
        boxes = specks(sample.labels, max(PIXELS, int(sample.labels.size * SMALLEST)), self.ignore)
        return _Specks(sample.split, sample.mask_name, sample.name, len(boxes), boxes[0] if boxes else (0, 0, 0, 0))

    def frame(self, seen: _Specks | None) -> Iterable[Finding]:
        if seen is not None:
            self.counts.append(seen.count)
            if seen.count >= AT_LEAST:
                self.seen.append(seen)
        return ()

    def end(self) -> Iterable[Finding]:
        """Frames with more specks than the others have: some labels are drawn with holes and dots everywhere."""
        usual = float(np.median(self.counts)) if self.counts else 0.0
        limit = max(AT_LEAST, limit_above(self.counts, DEVIATIONS))
        if usual >= AT_LEAST:
            what = (
                f"Half of all masks hold {usual:g} regions of a few pixels or more: reported are those with far more."
            )
            yield Finding(kind="specks-everywhere", file="", what=what)
        most = max((s.count for s in self.seen), default=1)
        for one in (s for s in self.seen if s.count >= limit):
            what = f"{one.count} regions of a few pixels, such as at {one.box[0]}, {one.box[1]}."
            yield Finding(
                kind="specks", file=one.file, what=what, split=one.split, score=one.count / most, box=one.box,
                others=(one.image,),
            )  # fmt: skip


def specks(labels: Image, most: int, ignore: int | None) -> list[Box]:
    """The boxes of connected regions of at most `most` pixels inside of one other class, the smallest first.

    What lies between two classes is left out, as far objects do; so are ignored pixels.
    """
    found: list[tuple[int, Box]] = []
    for class_id in np.flatnonzero(np.bincount(labels.ravel(), minlength=256)):
        if class_id == ignore:
            continue
        whole = np.asarray(labels == class_id).view(np.uint8)
        left, top, width, height = cv2.boundingRect(whole)
        here = whole[top : top + height, left : left + width]
        _, _, stats, _ = cv2.connectedComponentsWithStats(here, connectivity=8, ltype=cv2.CV_32S)
        for x, y, w, h, area in stats[1:][stats[1:, cv2.CC_STAT_AREA] <= most].tolist():
            box = (left + x, top + y, w, h)
            if len(_around(labels, box) - {class_id}) == 1:
                found.append((area, box))
    return [box for _, box in sorted(found)]


def _around(labels: Image, box: Box) -> set[int]:
    x, y, w, h = box
    return set(labels[max(0, y - 1) : y + h + 1, max(0, x - 1) : x + w + 1].ravel().tolist())


def open(context: Context) -> Check:
    return Specks(context.classes.ignore_index)
