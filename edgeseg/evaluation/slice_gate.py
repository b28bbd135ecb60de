"""The gate's checks of slices: night, one site, one camera must not pay for the gain of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeseg.data.slices import FrameSlice
from edgeseg.errors import OptionError, unknown
from edgeseg.evaluation.gate import Measured, at_least, at_most, same_data
from edgeseg.evaluation.statistics import difference, estimate, miou
from edgeseg.results.gate import Check

FEWEST = 5  # frames: the bootstrap of fewer is far too narrow


@dataclass(frozen=True)
class SliceLimits:
    """`max_drop`: points of mIoU that any slice may lose. `floors`: slice -> smallest mIoU in points."""

    max_drop: float | None = None
    floors: tuple[tuple[str, float], ...] = ()


def check_slices(
    build: Measured,
    reference: Measured | None,
    slices: Sequence[FrameSlice],
    limits: SliceLimits,
    confidence: float = 0.95,
) -> list[Check]:
    """A check for every slice and limit; with fewer than FEWEST frames it is undecided.

    Every verdict has the given confidence by itself: of 20 slices that lose exactly what is allowed, about one fails at
    95 %. OptionError for a floor of an unknown slice, and for a drop without a reference.
    """
    by_name = {part.name: part for part in slices}
    share = 2 * confidence - 1
    checks = []
    if limits.max_drop is not None:
        if reference is None:
            raise OptionError("--max-slice-drop needs something to compare with.", "Give --parent or --baseline.")
        same_data(build, reference)
        for part in slices:
            before, after = (own.tables[list(part.frames)] for own in (reference, build))
            lost = difference(before, after, miou, share)
            checks.append(_enough(at_most(f"mIoU drop, {part.name}", lost, limits.max_drop, len(before)), part))
    for name, floor in limits.floors:
        if name not in by_name:
            raise unknown("slice", name, by_name)
        part = by_name[name]
        own = build.tables[list(part.frames)]
        checks.append(_enough(at_least(f"mIoU, {name}", estimate(own, miou, share), floor, len(own)), part))
    return checks


def _enough(check: Check, part: FrameSlice) -> Check:
    """The check, undecided where the slice is too small to have an interval."""
    count = len(part.frames)
    if count >= FEWEST:
        return check
    value = "undefined" if check.value is None else f"{check.value:.2f} points"
    text = f"{value}, limit {check.limit:g}; {count} frames are too few to decide: at least {FEWEST} are needed"
    return replace(check, verdict="undecided", text=text, low=None, high=None, frames_needed=FEWEST)
