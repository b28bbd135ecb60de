"""The gate: may this build ship? Checks with three verdicts, because noise may neither fail nor pass a build.

A check is `fail` or `pass` only where a one-sided bootstrap bound (paired with the parent or the baseline over the
same frames) lies on one side of the limit. Otherwise it is `undecided`, and says how many frames would decide it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.data.dataset import Dataset
from edgeseg.data.slices import FrameSlice
from edgeseg.errors import FileError, OptionError, unknown
from edgeseg.evaluation.evaluate import Progress, count, slice_scores
from edgeseg.evaluation.metrics import TRUTH, Table
from edgeseg.evaluation.statistics import Estimate, boundary_f1, difference, estimate, iou_of, miou
from edgeseg.files import require_file
from edgeseg.machine import fingerprint
from edgeseg.records import Record
from edgeseg.results.common import DataIdentity, Machine
from edgeseg.results.gate import Check, GateResult
from edgeseg.runtime import PROXY, open_segmenter
from edgeseg.timing import Percentiles

MAKE_ONE = "Make one: edgeseg baseline BUNDLE --data D."
ROUNDS = 5
MAX_BASELINE = 256 << 20


@dataclass(frozen=True)
class Limits:
    """The limits of a build. Points are hundredths of 1; None = not checked.

    `max_drop`, `boundary_drop`: points of mIoU, of mean boundary F1, that may be lost. `max_gain`: points of mIoU that
    may be gained unexplained (a better figure than expected is as suspicious as a worse one). `floors`: class ->
    smallest IoU in points. `max_p99`: milliseconds a frame. `confidence`: of every verdict but `undecided`.
    """

    max_drop: float | None = 0.5
    boundary_drop: float | None = None
    max_gain: float | None = 2.0
    floors: tuple[tuple[str, float], ...] = ()
    max_p99: float | None = None
    confidence: float = 0.95


@dataclass(frozen=True)
class Measured:
    """A model's count tables [N, C, 7] on a dataset, in its order, and whose they are."""

    name: str
    digest: str
    data: DataIdentity
    tables: Table
    machine: Machine
    backend: str = ""

    def save(self, path: Path) -> None:
        Baseline(self.name, self.digest, self.data, self.tables.tolist(), self.machine).save(path)

    @classmethod
    def load(cls, path: Path) -> Measured:
        """FileError for anything but a baseline of ours."""
        if require_file(path, "Baseline").stat().st_size > MAX_BASELINE:
            raise FileError(f"{path} is not a baseline: it is over {MAX_BASELINE >> 20} MiB.", MAKE_ONE)
        stored = Baseline.load(path)
        try:
            tables = np.array(stored.tables, np.int64)
        except (ValueError, OverflowError) as error:
            raise FileError(f"{path} is not a baseline: {error}.", MAKE_ONE) from None
        if tables.shape != (stored.data.frames, len(stored.data.classes), 7) or (tables < 0).any():
            raise FileError(f"{path} is not a baseline: its tables are {tables.shape}.", MAKE_ONE)
        return cls(stored.name, stored.digest, stored.data, tables, stored.machine)


@dataclass(frozen=True)
class Baseline(Record):
    """Measured as a file."""

    KIND = "baseline"
    HINT = MAKE_ONE

    name: str
    digest: str
    data: DataIdentity
    tables: list[list[list[int]]]
    machine: Machine


def measure(path: Path, dataset: Dataset, progress: Progress | None = None) -> Measured:
    """Run a bundle over the whole dataset."""
    with open_segmenter(path, "throughput", backend=PROXY) as segmenter:
        counts, _ = count(segmenter, dataset, progress)
    bundle = segmenter.bundle
    assert bundle is not None  # it was opened from one
    names = tuple(dataset.classes.names)
    data = DataIdentity(dataset.root.name, dataset.split, len(dataset), dataset.digest(), names)
    return Measured(bundle.name, bundle.digest, data, counts.tables(), fingerprint(), segmenter.backend)


def same_data(build: Measured, reference: Measured) -> None:
    """OptionError unless both were measured on the same frames with the same classes."""
    if build.data.classes != reference.data.classes:
        raise OptionError(
            f"The baseline {reference.name} has the classes {', '.join(map(str, reference.data.classes))}; "
            f"the data has {', '.join(build.data.classes)}.",
            "Compare on the same class list, or update the baseline on purpose: edgeseg baseline.",
        )
    if build.data.digest != reference.data.digest:
        raise OptionError(
            f"The baseline {reference.name} was measured on other data: {reference.data.root} "
            f"{reference.data.split}, {reference.data.frames} frames.",
            "Give the same --data and --split, or update the baseline on purpose: edgeseg baseline.",
        )


def result_of(
    build: Measured, reference: Measured | None, checks: Sequence[Check], slices: Sequence[FrameSlice] = ()
) -> GateResult:
    """The checks of a build with their verdict, and its scores in `slices`."""
    return GateResult(
        verdict=verdict(checks),
        bundle=build.name,
        digest=build.digest,
        against=reference.name if reference else None,
        data=build.data,
        checks=tuple(checks),
        machine=build.machine,
        backend=build.backend,
        slices=tuple(slice_scores(part, build.tables, build.data.classes) for part in slices),
    )


def check_accuracy(build: Measured, reference: Measured | None, limits: Limits) -> list[Check]:
    """Every accuracy check that `limits` asks for."""
    checks = []
    share = 2 * limits.confidence - 1  # a two-sided interval whose ends are one-sided bounds
    frames = len(build.tables)
    if reference is not None:
        same_data(build, reference)
        lost = difference(reference.tables, build.tables, miou, share)
        if limits.max_drop is not None:
            checks.append(at_most("mIoU drop", lost, limits.max_drop, frames))
        if limits.max_gain is not None:
            gain = Estimate(-lost.value, -lost.high, -lost.low)
            checks.append(at_most("unexplained mIoU gain", gain, limits.max_gain, frames))
        if limits.boundary_drop is not None:
            lost = difference(reference.tables, build.tables, boundary_f1, share)
            checks.append(at_most("boundary F1 drop", lost, limits.boundary_drop, frames))
    names = build.data.classes
    for name, floor in limits.floors:
        if name not in names:
            raise unknown("class", name, names)
        index = names.index(name)
        if not build.tables[:, index, TRUTH].any():
            raise OptionError(f"Class {name} never occurs in the data.", "Its floor cannot be checked: remove it.")
        iou = estimate(build.tables, iou_of(index), share)
        checks.append(at_least(f"IoU of {name}", iou, floor, frames))
    return checks


def latency(path: Path, frames: list[Any], limit: float, seconds: float = 5.0) -> Check:
    """p99 of one frame at a time over interleaved rounds; undecided where some rounds are within and some are not."""
    from edgeseg.bench.measure import timed_loop

    with open_segmenter(path, "latency") as segmenter:
        list(timed_loop(segmenter, frames, 0.5))
        rounds = [Percentiles.of(timed_loop(segmenter, frames, seconds / ROUNDS)).p99 for _ in range(ROUNDS)]
    value, low, high = float(np.median(rounds)), min(rounds), max(rounds)
    # One disturbed round in five is the machine's, not the build's.
    within = sum(r <= limit for r in rounds)
    verdict = "pass" if within >= ROUNDS - 1 else "fail" if within <= 1 else "undecided"
    text = f"p99 {value:.2f} ms over {ROUNDS} rounds ({low:.2f} to {high:.2f}), limit {limit:g} ms"
    return Check("latency p99", verdict, text, value, limit, low, high)


def verdict(checks: Sequence[Check]) -> str:
    """The worst verdict: fail, then undecided, then pass. OptionError where there is no check."""
    if not checks:
        raise OptionError("The gate has nothing to check.", "Give --parent or --baseline, --class-floor or --max-p99.")
    verdicts = {check.verdict for check in checks}
    return next(word for word in ("fail", "undecided", "pass") if word in verdicts)


def at_most(name: str, figure: Estimate, limit: float, frames: int) -> Check:
    """The check that a `figure` of 1, measured on so many frames, is not above a `limit` in points."""
    return _check(name, figure, limit, frames, lambda points: points > limit, "allowed")


def at_least(name: str, figure: Estimate, limit: float, frames: int) -> Check:
    """The same for one that must not be below."""
    return _check(name, figure, limit, frames, lambda points: points < limit, "at least")


def _check(name: str, figure: Estimate, limit: float, frames: int, breaks: Callable[[float], bool], word: str) -> Check:
    value, low, high = (100 * v for v in (figure.value, figure.low, figure.high))
    broken = breaks(low), breaks(high)
    outcome = "fail" if all(broken) else "undecided" if any(broken) else "pass"
    if np.isnan([value, low, high]).any():
        outcome = "undecided"
    needed = None
    text = f"{value + 0.0:.2f} points ({low + 0.0:.2f} to {high + 0.0:.2f}), {word} {limit:g}"
    if outcome == "undecided":
        needed = _frames_needed(value, low, high, limit, frames)
        advice = (
            f"about {needed} frames like these would decide it" if needed else "no number of frames would decide it"
        )
        text += f"; {frames} frames are too few to decide: {advice}"
    defined = [None if np.isnan(v) else v for v in (value, low, high)]
    return Check(name, outcome, text, defined[0], limit, defined[1], defined[2], needed)


def _frames_needed(value: float, low: float, high: float, limit: float, frames: int) -> int | None:
    """The interval shrinks with the square root of the frames; it must become shorter than the gap to the limit."""
    gap = abs(value - limit)
    reach = max(high - value, value - low)
    if not gap > 1e-9 or not np.isfinite(reach):
        return None
    return int(np.ceil(frames * max(reach / gap, 1) ** 2))
