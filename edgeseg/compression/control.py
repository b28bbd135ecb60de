"""Accuracy control: keep as few layers in float as it takes for INT8 to stay within a drop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeseg.compression.sensitivity import Noise
from edgeseg.compression.trials import Outcome, Trial, Trials, points_lost, reference_precision
from edgeseg.data.dataset import Dataset
from edgeseg.evaluation.statistics import Estimate
from edgeseg.spec import Spec

KIND = "control"
Tried = dict[int, tuple[Outcome, Estimate]]


def control(trials: Trials, model: Path, spec: Spec, max_drop: float, out: Path, sure: bool = False) -> dict[str, Any]:
    """Write to `out` the INT8 bundle with the fewest layers in float that loses at most `max_drop` points of mIoU;
    `sure`: with its whole 95 % interval, so that other frames agree.

    Plain INT8 is tried first. If it loses more, the layers are ranked by noise once, and the k noisiest stay float:
    k doubles until the drop holds, then the gap is halved. Where the budget ends that, or no k holds, the best bundle
    so far is written. Returns the result (kind "control"): `held`, `chosen`, `rows` by k, `noise`, `stopped`.
    """
    precision = reference_precision(trials.target)
    reference = trials.measure(Trial(precision, model, spec, precision))
    tried: Tried = {}

    def holds(k: int) -> bool:
        found = trials.measure(Trial(f"keep-{k:03d}", model, spec, "int8", tuple(n.layer for n in noise[:k])))
        tried[k] = found, points_lost(reference, found)
        drop = tried[k][1]
        trials.log(f"{k} layers in float: {drop.value:.2f} points lost, {max_drop:g} allowed")
        return counted(drop, sure) <= max_drop

    noise: list[Noise] = []
    stopped = ""
    if not holds(0):
        noise, stopped = trials.noise(model, spec)
        stopped = _search(trials, holds, len(noise)) or stopped
    chosen = best({k: counted(drop, sure) for k, (_, drop) in tried.items()}, max_drop)
    outcome, drop = tried[chosen]
    held = counted(drop, sure) <= max_drop
    speeds = trials.speeds([reference, *(tried[k][0] for k in sorted(tried))])
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
        "chosen": chosen,
        "kept": list(outcome.trial.keep),
        "stopped": stopped,
        "reference": {"precision": precision, "miou": reference.miou, **speeds[reference.trial.name]},
        "rows": [_row(k, *tried[k], speeds) for k in sorted(tried)],
        "measured_by": outcome.measured_by,
        **summary,
    }


def counted(drop: Estimate, sure: bool) -> float:
    """The points that a limit is held against: the estimate, or to be sure the upper end of its interval."""
    return drop.high if sure else drop.value


def best(points: dict[int, float], max_drop: float) -> int:
    """The smallest k whose points hold; where none do, the one that loses least (of equals, the smallest)."""
    holding = [k for k, lost in points.items() if lost <= max_drop]
    return min(holding) if holding else min(points, key=lambda k: (round(points[k], 3), k))


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


def _row(k: int, found: Outcome, drop: Estimate, speeds: dict[str, Any]) -> dict[str, Any]:
    return {
        "k": k,
        "kept": list(found.trial.keep),
        "miou": found.miou,
        "drop": drop.to_dict(),
        **speeds[found.trial.name],
        "bytes": found.bytes,
        "seconds": found.seconds,
    }


def _data(dataset: Dataset) -> dict[str, Any]:
    return {"root": dataset.root.name, "split": dataset.split, "frames": len(dataset), "digest": dataset.digest()}
