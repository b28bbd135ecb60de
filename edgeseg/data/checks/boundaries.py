"""Boundaries of labels against edges of the image: masks that are shifted, or outlined ragged or loosely.

The label boundaries are laid over the image's gradient at every shift of a few pixels; the correlation coefficient has
its peak where they belong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.checks import Check, Context, Sample
from edgeseg.images import Image
from edgeseg.results.check import Finding

ERRORS = ()
REACH = 12  # pixels of the small frame, and at most this part of its shorter side:
REACH_SHARE = 1 / 10  # in a tiny frame a few pixels of edge fit by chance somewhere
MIN_SHIFT = 2.5  # pixels of the small frame
MIN_GAIN = 0.04  # of the correlation coefficient, by the shift
MIN_RATIO = 1.35  # of the coefficients with the shift and without
MIN_BOUNDARY = 200  # pixels of boundary, for a figure that means something
RAGGED = 0.5  # of the usual contrast: less means that boundaries keep off the edges
NEARBY = 6.0  # pixels of the small frame: what the edges on a boundary are compared with
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Alignment:
    """`x`, `y`: by how much the labels are right of and below the edges that they fit best, in pixels of the frame;
    `small` the same in pixels of the small frame. `inside`: whether that is nearer than all that was tried, for at the
    limit there need be no peak. `fit`: the correlation where they are, `best` where they fit.
    `contrast`: by how much the edges on the boundaries are stronger than those nearby, as a share."""

    x: float
    y: float
    small: float
    inside: bool
    fit: float
    best: float
    contrast: float

    @property
    def shifted(self) -> bool:
        return (
            self.inside
            and self.small >= MIN_SHIFT
            and self.best - self.fit >= MIN_GAIN
            and self.best >= MIN_RATIO * self.fit
        )


@dataclass(frozen=True)
class _Seen:
    split: str
    mask: str
    image: str
    found: Alignment


class Boundaries(Check):
    def __init__(self, ignore: int | None) -> None:
        self.ignore = ignore
        self.contrasts: list[float] = []
        self.files: list[tuple[str, str, str]] = []

    def look(self, sample: Sample) -> _Seen | None:
        if not sample.fits or sample.labels is None:
            return None
        found = alignment(sample.small, sample.labels, self.ignore)
        return None if found is None else _Seen(sample.split, sample.mask_name, sample.name, found)

    def frame(self, seen: _Seen | None) -> Iterator[Finding]:
        if seen is None:
            return
        found = seen.found
        if found.shifted:
            sides = ("right" if found.x > 0 else "left", "low" if found.y > 0 else "high")
            what = f"Its labels lie {abs(found.x):.0f} px too far {sides[0]} and {abs(found.y):.0f} px too {sides[1]}."
            yield Finding(
                kind="shifted-mask", file=seen.mask, what=what, split=seen.split,
                score=min(1.0, found.small / REACH), others=(seen.image,),
            )  # fmt: skip
        else:
            self.contrasts.append(found.contrast)
            self.files.append((seen.split, seen.mask, seen.image))

    def end(self) -> Iterable[Finding]:
        usual = float(np.median(self.contrasts)) if self.contrasts else 0.0
        for contrast, (split, mask, image) in zip(self.contrasts, self.files):
            if contrast < RAGGED * usual:
                what = (
                    f"The image's edges are {abs(100 * contrast):.0f} % {'stronger' if contrast >= 0 else 'weaker'} on "
                    f"the label boundaries than around them; {100 * usual:.0f} % stronger is usual here."
                )
                score = min(1.0, max(0.0, 1 - contrast / usual))
                yield Finding(
                    kind="ragged-boundary", file=mask, what=what, split=split, score=score, others=(image,)
                )  # fmt: skip


def alignment(frame: Image, labels: Image, ignore: int | None) -> Alignment | None:
    """How the boundaries of `labels` [H, W] lie on the edges of `frame` [h, w, 3], the same picture, smaller; None
    where there are too few."""
    height, width = frame.shape[:2]
    if min(height, width) < 4 * REACH:
        return None
    reach = min(REACH, int(REACH_SHARE * min(height, width)))
    small = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    drawn, seen = boundary(np.asarray(small, np.uint8), ignore), edges(frame)
    outline = drawn[reach:-reach, reach:-reach]
    if np.count_nonzero(outline) < MIN_BOUNDARY:
        return None
    fits = cv2.matchTemplate(seen, outline, cv2.TM_CCOEFF_NORMED)
    _, best, _, (x, y) = cv2.minMaxLoc(fits)
    dx, dy, scale = reach - x, reach - y, labels.shape[1] / width
    on = drawn > 0.3
    contrast = float((seen[on] / (cv2.GaussianBlur(seen, (0, 0), NEARBY)[on] + 1e-3)).mean()) - 1
    inside = max(abs(dx), abs(dy)) < reach
    return Alignment(dx * scale, dy * scale, float(np.hypot(dx, dy)), inside, float(fits[reach, reach]), best, contrast)


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
