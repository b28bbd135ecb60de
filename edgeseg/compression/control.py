"""Accuracy control: keep as few layers in float as it takes for INT8 to stay within a drop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeseg.bench.blocks import Block, Heading, Table, Text
from edgeseg.compression.sensitivity import Noise
from edgeseg.compression.trials import Outcome, Trial, Trials, points_lost, reference_precision
from edgeseg.data.dataset import Dataset
from edgeseg.evaluation.statistics import Estimate
from edgeseg.spec import Spec

KIND = "control"
Tried = dict[int, tuple[Outcome, Estimate]]


def control(trials: Trials, model: Path, spec: Spec, max_drop: float, out: Path) -> dict[str, Any]:
    """Write to `out` the INT8 bundle with the fewest layers in float that loses at most `max_drop` points of mIoU.

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
        drop = tried[k][1].value
        trials.log(f"{k} layers in float: {drop:.2f} points lost, {max_drop:g} allowed")
        return drop <= max_drop

    noise: list[Noise] = []
    stopped = ""
    if not holds(0):
        noise, stopped = trials.noise(model, spec)
        stopped = _search(trials, holds, len(noise)) or stopped
    chosen = best(tried, max_drop)
    outcome, drop = tried[chosen]
    held = drop.value <= max_drop
    summary = {
        "held": held,
        "max_drop": max_drop,
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
        "reference": {"precision": precision, "miou": reference.miou, "latency_ms": reference.latency_ms},
        "rows": [_row(k, *tried[k]) for k in sorted(tried)],
        "measured_by": outcome.measured_by,
        **summary,
    }


def best(tried: Tried, max_drop: float) -> int:
    """The smallest k that holds; where none does, the one that lost least (of equals, the smallest)."""
    holding = [k for k, (_, drop) in tried.items() if drop.value <= max_drop]
    return min(holding) if holding else min(tried, key=lambda k: (round(tried[k][1].value, 3), k))


def blocks(d: dict[str, Any]) -> list[Block]:
    """The result as a report: what was tried, each layer's noise, and what was kept."""
    data, drop = d["data"], d["drop"]
    rows = [
        [
            f"{row['k']}{' (chosen)' if row['k'] == d['chosen'] else ''}",
            f"{100 * row['miou']:.2f}",
            told(row["drop"]),
            f"{row['latency_ms']['p50']:.2f}",
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['seconds']:.0f}",
        ]
        for row in d["rows"]
    ]
    noise = [
        [row["layer"], row["operator"], f"{row['sqnr_db']:.1f}", "float" if row["layer"] in d["kept"] else "INT8"]
        for row in d["noise"]
    ]
    kept = f"{len(d['kept'])} layers in float" if d["kept"] else "every layer in INT8"
    return [
        Heading(f"Accuracy control: {kept}"),
        Text(
            f"{told(drop)} points of mIoU lost, {d['max_drop']:g} allowed: {'held' if d['held'] else 'NOT held'}. "
            f"Measured on {data['frames']} frames of {data['root']} {data['split']} through {d['measured_by']}.",
            True,
        ),
        *([Text(f"Stopped early: {d['stopped']}.", True)] if d["stopped"] else []),
        Table(["layers in float", "mIoU", "points lost (95 %)", "p50 ms", "MB", "seconds"], rows),
        Heading("Noise of INT8 at the logits, layer by layer", 3),
        Table(["layer", "operator", "SQNR dB", ""], noise) if noise else Text("Plain INT8 held: nothing was ranked."),
    ]


def told(drop: dict[str, Any]) -> str:
    """Points with their interval."""
    ends = "" if drop["low"] is None else f" ({drop['low']:.2f} to {drop['high']:.2f})"
    return f"{drop['value'] + 0.0:.2f}{ends}"


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


def _row(k: int, found: Outcome, drop: Estimate) -> dict[str, Any]:
    return {
        "k": k,
        "kept": list(found.trial.keep),
        "miou": found.miou,
        "drop": drop.to_dict(),
        "latency_ms": found.latency_ms,
        "bytes": found.bytes,
        "seconds": found.seconds,
    }


def _data(dataset: Dataset) -> dict[str, Any]:
    return {"root": dataset.root.name, "split": dataset.split, "frames": len(dataset), "digest": dataset.digest()}
