"""Accuracy control: keep as few layers in float as it takes for INT8 to stay within a drop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeseg.data.dataset import Dataset
from edgeseg.evaluation.statistics import Estimate
from edgeseg.precision import Precision
from edgeseg.quantization import schemes
from edgeseg.quantization.sensitivity import Noise
from edgeseg.recipe import PTQ
from edgeseg.search.trials import Outcome, Trial, Trials, points_lost, reference_precision
from edgeseg.spec import Spec

KIND = "control"
Loss = Callable[[Trial], float]  # measures a trial: the points it lost, as they count


def control(
    trials: Trials,
    model: Path,
    spec: Spec,
    max_drop: float,
    out: Path,
    sure: bool = False,
    precision: Precision = Precision.INT8,
) -> dict[str, Any]:
    """Write to `out` the INT8 bundle with the fewest layers in float that loses at most `max_drop` points of mIoU;
    `sure`: with its whole 95 % interval, so that other frames agree.

    Plain INT8 is tried first, then other ways to find INT8 (other_ways), until one holds. If none does, the layers are
    ranked by noise once, and in the best of those ways the k noisiest stay float: k doubles until the drop holds, then
    the gap is halved. Where the budget ends that, or no k holds, the best bundle so far is written. Returns the result
    (kind "control"): `held`, `chosen`, `rows`, `noise`, `stopped`.
    """
    floating = reference_precision(trials.target)
    reference = trials.measure(Trial(floating, model, spec, floating))
    tried: list[tuple[Outcome, Estimate]] = []

    def loss(candidate: Trial) -> float:
        found = trials.measure(candidate)
        tried.append((found, points_lost(reference, found)))
        lost = tried[-1][1]
        what = f"{len(candidate.keep)} layers in float" + (f", {way}" if (way := way_of(candidate.ptq)) else "")
        trials.log(f"{what}: {lost.value:.2f} points lost, {max_drop:g} allowed")
        return counted(lost, sure)

    way, lost, stopped = best_way(trials, Trial("keep-000", model, spec, precision), max_drop, loss)
    noise: list[Noise] = []
    if lost > max_drop and not stopped:
        noise, stopped = trials.noise(model, spec)

        def holds(k: int) -> bool:
            kept = tuple(n.layer for n in noise[:k])
            return loss(replace(way, name=way.name.replace("000", f"{k:03d}"), keep=kept)) <= max_drop

        stopped = _search(trials, holds, len(noise)) or stopped
    number = best([(len(found.trial.keep), counted(drop, sure)) for found, drop in tried], max_drop)
    outcome, drop = tried[number]
    held = counted(drop, sure) <= max_drop
    speeds = trials.speeds([reference, *(found for found, _ in tried)])
    summary = {
        "held": held,
        "max_drop": max_drop,
        "sure": sure,
        "drop": drop.to_dict(),
        "data": _data(trials.dataset),
        "noise": [row.to_dict() for row in noise],
    }
    trials.publish(outcome, out, {"control": summary})
    return {
        "kind": KIND,
        "bundle": str(out),
        "chosen": outcome.trial.name,
        "kept": list(outcome.trial.keep),
        "stopped": stopped,
        "reference": {"precision": floating, "miou": reference.miou, **speeds[reference.trial.name]},
        "rows": [_row(*each, speeds) for each in sorted(tried, key=lambda each: len(each[0].trial.keep))],
        "measured_by": outcome.measured_by,
        **summary,
    }


def best_way(trials: Trials, plain: Trial, max_drop: float, loss: Loss) -> tuple[Trial, float, str]:
    """(trial, what it lost, what of the budget ran out or ""): the first way to INT8 that holds; where none does, the
    one that loses least."""
    found = [(loss(plain), plain)]
    stopped = ""
    for other in other_ways(plain, trials.target.quantizer):
        if found[-1][0] <= max_drop or (stopped := trials.budget.spent()):
            break
        found.append((loss(other), other))
    lost, way = min(found, key=lambda pair: pair[0])
    return way, lost, stopped


def other_ways(plain: Trial, scheme: str) -> Iterator[Trial]:
    """INT8 with channels equalized, with biases left as they are, and by the other ranges that the scheme has."""
    _, *others = schemes.get(scheme).ranges
    if others:  # TensorRT's own calibrator has no choice
        ways = [PTQ(equalize=True), PTQ(bias=False), *(PTQ(ranges=ranges) for ranges in others)]
        yield from (replace(plain, name=f"{plain.name}-{way_of(ptq)}", ptq=ptq) for ptq in ways)


def way_of(ptq: PTQ) -> str:
    """What differs from the plain way, for people: mse, equalized, uncorrected, or "" for nothing."""
    words = [ptq.ranges if ptq.ranges != PTQ.ranges else "", "equalized" if ptq.equalize else ""]
    return "-".join(word for word in (*words, "" if ptq.bias else "uncorrected") if word)


def counted(drop: Estimate, sure: bool) -> float:
    """The points that a limit is held against: the estimate, or to be sure the upper end of its interval."""
    return drop.high if sure else drop.value


def best(tried: Sequence[tuple[int, float]], max_drop: float) -> int:
    """Which of these (layers in float, points lost): the fewest layers that hold, of those the one that loses least;
    where none holds, the one that loses least (of equals, with the fewest layers)."""
    holding = [i for i, (_, lost) in enumerate(tried) if lost <= max_drop]
    if holding:
        return min(holding, key=lambda i: tried[i])
    return min(range(len(tried)), key=lambda i: (round(tried[i][1], 3), tried[i][0]))


def _search(trials: Trials, holds: Any, count: int) -> str:
    """Try values of k up to `count`; returns what of the budget ran out, or ""."""
    low, high, k = 0, count + 1, min(1, count)  # `low` does not hold, `high` does or is out of reach
    while high - low > 1:
        if reason := trials.budget.spent():
            return reason
        left = max(1, (high - low).bit_length())
        trials.log(f"{k} of {count} layers in float next, at most {left} more, {trials.budget.eta(left)}")
        if holds(k):
            high = k
        else:
            low = k
        k = min(2 * k, count) if high > count else (low + high) // 2
    return ""


def _row(found: Outcome, drop: Estimate, speeds: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": found.trial.name,
        "k": len(found.trial.keep),
        "way": way_of(found.trial.ptq),
        "kept": list(found.trial.keep),
        "miou": found.miou,
        "drop": drop.to_dict(),
        **speeds[found.trial.name],
        "bytes": found.bytes,
        "seconds": found.seconds,
    }


def _data(dataset: Dataset) -> dict[str, Any]:
    return {"root": dataset.root.name, "split": dataset.split, "frames": len(dataset), "digest": dataset.digest()}
