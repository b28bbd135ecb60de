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

    def look(self, sample: Sample) -> tuple[str, NDArray[np.int64]] | None:
        """The split, and the pixels of each class."""
        return None if sample.labels is None else (sample.split, sample.counts[: len(self.names)])

    def frame(self, seen: tuple[str, NDArray[np.int64]] | None) -> Iterable[Finding]:
        if seen is not None:
            split, pixels = seen
            self.pixels[split] += pixels
            self.frames[split] += pixels > 0
            self.number[split] += 1
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
