"""Boundaries of labels against edges of the image: masks that are shifted, or outlined ragged or loosely.

The label boundaries are laid over the image's gradient at every shift of a few pixels; the correlation coefficient has
its peak where they belong.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.checks import Check, Context, Sample
from edgeseg.data.checks._outliers import limit_above
from edgeseg.images import Image
from edgeseg.results.check import Finding

ERRORS = ()
REACH = 12  # pixels of the small frame
MIN_SHIFT = 2.5  # pixels of the small frame
MIN_GAIN = 0.04  # of the correlation coefficient, by the shift
MIN_RATIO = 1.35  # of the coefficients with the shift and without
MIN_BOUNDARY = 200  # pixels of boundary, for a figure that means something
DEVIATIONS = 4.5
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Alignment:
    """`x`, `y`: by how much the labels are right of and below the edges that they fit best, in pixels of the frame;
    `small` the same in pixels of the small frame. `fit`: the correlation where they are, `best` where they fit."""

    x: float
    y: float
    small: float
    fit: float
    best: float

    @property
    def shifted(self) -> bool:
        return self.small >= MIN_SHIFT and self.best - self.fit >= MIN_GAIN and self.best >= MIN_RATIO * self.fit


class Boundaries(Check):
    def __init__(self, ignore: int | None) -> None:
        self.ignore = ignore
        self.fits: list[float] = []
        self.files: list[tuple[str, str, str]] = []

    def frame(self, sample: Sample) -> Iterable[Finding]:
        if not sample.fits or sample.labels is None:
            return
        found = alignment(sample.small, sample.labels, self.ignore)
        if found is None:
            return
        if found.shifted:
            sides = ("right" if found.x > 0 else "left", "low" if found.y > 0 else "high")
            what = f"Its labels lie {abs(found.x):.0f} px too far {sides[0]} and {abs(found.y):.0f} px too {sides[1]}."
            yield Finding(
                kind="shifted-mask", file=sample.mask_name, what=what, split=sample.split,
                score=min(1.0, found.small / REACH), others=(sample.name,),
            )  # fmt: skip
        else:
            self.fits.append(found.best)
            self.files.append((sample.split, sample.mask_name, sample.name))

    def end(self) -> Iterable[Finding]:
        lowest = -limit_above([-fit for fit in self.fits], DEVIATIONS)
        for fit, (split, mask, image) in zip(self.fits, self.files):
            if fit < lowest:
                usual = float(np.median(self.fits))
                what = f"Label boundaries follow the image's edges far less than elsewhere ({fit:.2f} of {usual:.2f})."
                score = min(1.0, max(0.0, 1 - fit / usual))
                yield Finding(
                    kind="ragged-boundary", file=mask, what=what, split=split, score=score, others=(image,)
                )  # fmt: skip


def alignment(frame: Image, labels: Image, ignore: int | None) -> Alignment | None:
    """How the boundaries of `labels` [H, W] lie on the edges of `frame` [h, w, 3], the same picture, smaller; None
    where there are too few."""
    height, width = frame.shape[:2]
    if min(height, width) < 4 * REACH:
        return None
    small = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    outline = boundary(np.asarray(small, np.uint8), ignore)[REACH:-REACH, REACH:-REACH]
    if np.count_nonzero(outline) < MIN_BOUNDARY:
        return None
    fits = cv2.matchTemplate(edges(frame), outline, cv2.TM_CCOEFF_NORMED)
    _, best, _, (x, y) = cv2.minMaxLoc(fits)
    dx, dy, scale = REACH - x, REACH - y, labels.shape[1] / width
    return Alignment(dx * scale, dy * scale, float(np.hypot(dx, dy)), float(fits[REACH, REACH]), best)


def boundary(labels: Image, ignore: int | None) -> Floats:
    """[H, W]: 1 where a pixel's class differs from the right or the lower neighbor's, ignored pixels aside."""
    out = np.zeros(labels.shape, np.float32)
    for here, a, b in (
        (out[:, :-1], labels[:, :-1], labels[:, 1:]),
        (out[:-1], labels[:-1], labels[1:]),
    ):
        differ = a != b
        if ignore is not None:
            differ &= (a != ignore) & (b != ignore)
        here[differ] = 1
    return np.asarray(cv2.GaussianBlur(out, (0, 0), 0.8), np.float32)


def edges(frame: Image) -> Floats:
    """[h, w]: the strength of the image's edges; strong ones count no more than clear ones."""
    gray = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), (0, 0), 1.0).astype(np.float32)
    strength = np.hypot(cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1))
    return np.asarray(np.minimum(strength, np.percentile(strength, 90)), np.float32)


def open(context: Context) -> Check:
    return Boundaries(context.classes.ignore_index)
