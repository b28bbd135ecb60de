"""Class balance: classes that a split never or hardly ever shows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.checks import Check, Context, Sample
from edgeseg.results.check import Finding

ERRORS = ()
RARE_PIXELS = 0.0005  # of those with a label
RARE_FRAMES = 0.01


class Balance(Check):
    def __init__(self, context: Context) -> None:
        self.names = context.classes.names
        empty = {split: np.zeros(len(self.names), np.int64) for split in context.images}
        self.pixels: dict[str, NDArray[np.int64]] = empty
        self.frames = {split: counts.copy() for split, counts in empty.items()}
        self.number = dict.fromkeys(context.images, 0)

    def frame(self, sample: Sample) -> Iterable[Finding]:
        if sample.labels is not None:
            pixels = np.bincount(sample.labels.ravel(), minlength=256)[: len(self.names)]
            self.pixels[sample.split] += pixels
            self.frames[sample.split] += pixels > 0
            self.number[sample.split] += 1
        return ()

    def end(self) -> Iterable[Finding]:
        for split in (split for split, number in self.number.items() if number):
            shares = self.pixels[split] / max(1, self.pixels[split].sum())
            for name, share, frames in zip(self.names, shares, self.frames[split].tolist()):
                where = f"in {frames} of {self.number[split]} frames"
                if not frames:
                    kind, what = "missing-class", f"No mask of {split} holds {name}."
                elif share < RARE_PIXELS or frames < RARE_FRAMES * self.number[split]:
                    kind, what = "rare-class", f"{split} hardly shows {name}: {100 * share:.3f} % of pixels, {where}."
                else:
                    continue
                yield Finding(kind=kind, file="", what=what, split=split, score=float(1 - min(1, share / RARE_PIXELS)))


def open(context: Context) -> Check:
    return Balance(context)
