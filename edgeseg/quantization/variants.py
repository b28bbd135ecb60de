"""Variants of INT8, chosen by measurement: how activation ranges are estimated, and the few layers that stay float.

No estimator of ranges is best for every network: the smallest and largest value keep rare classes, and lose whole
points where a few values lie far out. So each is measured on frames that did not calibrate it, by the mean IoU between
the class maps of INT8 and those of the float network: a class counts as much as any other, however few pixels it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeseg.images import Image
from edgeseg.recipe import PTQ

# Above both, no other variant is tried: at most 0.5 % of pixels can change, and no class is lost.
GOOD_AGREEMENT, GOOD_MIOU = 0.995, 0.95
FLOOR = 0.98  # of pixels: below it, more than other ranges is tried
SLOW = ("entropy",)  # ranges that are tried only below the floor
RARE = 5e-4  # share of pixels below which a class says nothing


@dataclass(frozen=True)
class Variant:
    """`ptq`: never with ranges "auto". `excluded`: names of layers that stay float."""

    ptq: PTQ
    excluded: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"ranges {self.ptq.ranges}"]
        parts += ["equalized"] if self.ptq.equalize else []
        parts += [] if self.ptq.bias else ["biases as they are"]
        parts += [f"{len(self.excluded)} layers float"] if self.excluded else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Score:
    """Of INT8's class maps beside the float ones: the share of equal pixels, and the mean IoU."""

    agreement: float
    miou: float

    @property
    def good(self) -> bool:
        return self.agreement >= GOOD_AGREEMENT and self.miou >= GOOD_MIOU

    def __str__(self) -> str:
        return f"{self.agreement:.2%} of pixels, mean IoU {self.miou:.4f}"


Step = Callable[[Variant], Iterable[Variant]]


def score(found: Sequence[Image], expected: Sequence[Image], classes: int) -> Score:
    """Class maps [H, W] uint8 of the same frames, ids below `classes`."""
    table = np.zeros((classes, classes), np.int64)
    for a, b in zip(found, expected):
        table += np.bincount(b.ravel().astype(np.int64) * classes + a.ravel(), minlength=classes**2).reshape(
            table.shape
        )
    hits, truth, guesses = np.diag(table), table.sum(1), table.sum(0)
    present = truth > RARE * table.sum()
    return Score(float(hits.sum() / table.sum()), float((hits / np.maximum(truth + guesses - hits, 1))[present].mean()))


def choose(
    ranges: Sequence[str],
    plain: Variant,
    measure: Callable[[Variant], Score],
    exclusions: Step,
    log: Callable[[str], None] = lambda text: None,
) -> tuple[Variant, Score]:
    """The best variant and its score. `ranges`: those to choose from, the first of which `plain` has.

    The other ranges are tried unless the first is good. If the best is below the floor, it is varied: equalized
    channels, uncorrected biases, and layers left float, in the order of `exclusions`, each on top of what helped so
    far, until one is above it.
    """

    def tried(variant: Variant) -> tuple[Variant, Score]:
        result = measure(variant)
        log(f"INT8 with {variant}: {result}")
        return variant, result

    best = tried(plain)
    for name in ranges[1:]:
        if best[1].good or name in SLOW:
            break
        best = max(best, tried(replace(plain, ptq=replace(plain.ptq, ranges=name))), key=_quality)
    for step in _cheap_steps(ranges, exclusions):
        if best[1].agreement >= FLOOR:
            break
        for variant in step(best[0]):
            best = max(best, tried(variant), key=_quality)
            if best[1].agreement >= FLOOR:
                break
    return best


def _cheap_steps(ranges: Sequence[str], exclusions: Step) -> Iterator[Step]:
    """Each gives variants of the best one so far."""
    yield lambda base: (replace(base, ptq=replace(base.ptq, ranges=name)) for name in ranges if name in SLOW)
    yield lambda base: [replace(base, ptq=replace(base.ptq, equalize=True))] if not base.ptq.equalize else []
    yield lambda base: [replace(base, ptq=replace(base.ptq, bias=False))] if base.ptq.bias else []
    yield exclusions


def _quality(tried: tuple[Variant, Score]) -> float:
    return tried[1].miou
