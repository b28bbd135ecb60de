"""The top of a report: bundles side by side, and a warning where their figures are not one ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeseg.report.blocks import Block, Heading, Table, Text
from edgeseg.report.charts import Bars, Scatter, Stack
from edgeseg.results.bench import BenchResult, HostsResult
from edgeseg.results.common import BundleIdentity
from edgeseg.results.evaluation import EvalResult


@dataclass(frozen=True)
class Row:
    """One bundle on one machine: its accuracy (eval) and its speed (bench), None where it was not measured."""

    name: str
    bundle: BundleIdentity
    accuracy: EvalResult | None
    speed: BenchResult | None


def compare(results: Sequence[Any]) -> list[Block]:
    """Nothing for a single bundle of which only accuracy or only speed was measured; else a table, the front and bars
    per class."""
    evals = [r for r in results if isinstance(r, EvalResult) and r.bundle]
    benches = [b for r in results for b in (r.hosts if isinstance(r, HostsResult) else [r])
               if isinstance(b, BenchResult) and b.bundle]  # fmt: skip
    rows = _rows(evals, benches)
    if len(rows) < 2 and not (evals and benches):
        return []
    blocks: list[Block] = [Heading("At a glance"), *(Text(text, strong=True) for text in _warnings(evals, benches))]
    blocks.append(_table(rows))
    points = [
        (row.name, row.speed.latency_ms.p50, 100 * (row.accuracy.miou or 0))
        for row in rows
        if row.accuracy and row.speed
    ]
    if points:
        blocks.append(Scatter("accuracy over latency: up and left is better", "latency p50, ms", "mIoU, %", points))
    if len(benches) > 1:
        stacks = [(row.name, {k: v.p50 for k, v in row.speed.stages_ms.items()}) for row in rows if row.speed]
        blocks.append(Stack("where a frame's time goes, medians", stacks))
    if len(evals) > 1:
        blocks += _per_class(evals)
    return blocks


def _rows(evals: list[EvalResult], benches: list[BenchResult]) -> list[Row]:
    """An accuracy belongs to every machine its bundle was benched on."""
    accuracies = {e.bundle.digest: e for e in reversed(evals) if e.bundle}
    several = len({b.machine.id for b in benches if b.machine}) > 1
    rows = []
    for b in benches:
        assert b.bundle is not None
        where = f" @ {b.host or (b.machine.cpu if b.machine else '')}" if several else ""
        rows.append(Row(b.bundle.name + where, b.bundle, accuracies.get(b.bundle.digest), b))
    known = {row.bundle.digest for row in rows}
    return rows + [Row(e.bundle.name, e.bundle, e, None) for e in evals if e.bundle and e.bundle.digest not in known]


def _warnings(evals: list[EvalResult], benches: list[BenchResult]) -> list[str]:
    warnings = []
    machines = {b.machine.id: b.machine for b in benches if b.machine}
    if len(machines) > 1:
        names = "; ".join(f"{m.cpu}, {m.cores} cores ({key})" for key, m in machines.items())
        warnings.append(f"The speeds come from {len(machines)} different set-ups and are not one ranking: {names}.")
    data = {(e.data.root, e.data.split, e.frames) for e in evals if e.data}
    if len(data) > 1:
        names = "; ".join(f"{root} {split}, {frames} frames" for root, split, frames in sorted(data))
        warnings.append(f"The accuracies come from different data and are not one ranking: {names}.")
    unstable = sorted({b.bundle.name for b in benches if b.unstable and b.bundle})
    if unstable:
        warnings.append(f"Some speeds of {', '.join(unstable)} differ by more than 5 % between rounds: see below.")
    return warnings


def _table(rows: list[Row]) -> Table:
    cells = []
    for row in rows:
        accuracy, speed = ["-", "-"], ["-"] * 4
        if row.accuracy:
            span = row.accuracy.interval.miou
            accuracy = ["-" if row.accuracy.miou is None else f"{100 * row.accuracy.miou:.2f}"]
            accuracy.append(f"{100 * span[0]:.1f} to {100 * span[1]:.1f}" if span else "-")
        if row.speed:
            speed = [f"{row.speed.fps:.0f}", *(f"{ms:.2f}" for ms in row.speed.latency_ms.values())]
        identity = [f"{row.bundle.target} {row.bundle.precision}", f"{row.bundle.bytes / 1e6:.2f}"]
        cells.append([row.name, *identity, *accuracy, *speed])
    return Table(["bundle", "target", "MB", "mIoU", "95 %", "FPS", "p50 ms", "p90 ms", "p99 ms"], cells)


def _per_class(evals: list[EvalResult]) -> list[Block]:
    first = evals[0].per_class
    comparable = [e for e in evals if list(e.per_class) == list(first)]
    if len(comparable) < 2:
        return []
    rows = [(name, [_percent(e.per_class[name].iou) for e in comparable]) for name in first]
    return [
        Heading("IoU per class", 3),
        Bars("IoU, %", [e.bundle.name if e.bundle else "" for e in comparable], rows, "", 100),
    ]


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
