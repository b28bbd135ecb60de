"""The top of a report: bundles side by side, and a plain word where their figures are not one ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeseg.report.blocks import Block, Heading, Table, Text
from edgeseg.report.charts import Bars, Scatter, Stack

Document = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One bundle on one machine: its accuracy (eval) and its speed (bench), None where it was not measured."""

    name: str
    digest: str
    accuracy: Document | None
    speed: Document | None


def compare(documents: Sequence[Document]) -> list[Block]:
    """Nothing for a single bundle measured in one way only; else a table, the front and bars per class."""
    evals = [d for d in documents if d.get("kind") == "eval"]
    benches = [one for d in documents for one in (d["hosts"] if d.get("kind") == "benches" else [d]) if _is_bench(one)]
    rows = _rows(evals, benches)
    if len(rows) < 2 and not (evals and benches):
        return []
    blocks: list[Block] = [Heading("At a glance"), *(Text(word, strong=True) for word in _warnings(evals, benches))]
    blocks.append(_table(rows))
    if points := [_point(row) for row in rows if row.accuracy and row.speed]:
        blocks.append(Scatter("accuracy over latency: up and left is better", "latency p50, ms", "mIoU, %", points))
    if len(benches) > 1:
        stacks = [(row.name, {k: v["p50"] for k, v in row.speed["stages_ms"].items()}) for row in rows if row.speed]
        blocks.append(Stack("where a frame's time goes, medians", stacks))
    if len(evals) > 1:
        blocks += _per_class(evals)
    return blocks


def _is_bench(d: Document) -> bool:
    return d.get("kind") == "bench"


def _rows(evals: list[Document], benches: list[Document]) -> list[Row]:
    """An accuracy belongs to every machine its bundle was benched on."""
    rows = []
    machines = {d["machine"]["id"] for d in benches}
    for d in benches:
        same = next((e for e in evals if e["bundle"]["digest"] == d["bundle"]["digest"]), None)
        where = f" @ {d.get('host') or d['machine']['cpu']}" if len(machines) > 1 else ""
        rows.append(Row(d["bundle"]["name"] + where, d["bundle"]["digest"], same, d))
    known = {row.digest for row in rows}
    return rows + [
        Row(e["bundle"]["name"], e["bundle"]["digest"], e, None) for e in evals if e["bundle"]["digest"] not in known
    ]


def _warnings(evals: list[Document], benches: list[Document]) -> list[str]:
    words = []
    machines = {d["machine"]["id"]: d["machine"] for d in benches}
    if len(machines) > 1:
        told = "; ".join(f"{m['cpu']}, {m['cores']} cores ({key})" for key, m in machines.items())
        words.append(f"The speeds come from {len(machines)} different set-ups and are not one ranking: {told}.")
    data = {(e["data"]["root"], e["data"]["split"], e["frames"]) for e in evals}
    if len(data) > 1:
        told = "; ".join(f"{root} {split}, {frames} frames" for root, split, frames in sorted(data))
        words.append(f"The accuracies come from different data and are not one ranking: {told}.")
    unstable = sorted({d["bundle"]["name"] for d in benches if d["unstable"]})
    if unstable:
        words.append(f"Some speeds of {', '.join(unstable)} differ by more than 5 % between rounds: see below.")
    return words


def _table(rows: list[Row]) -> Table:
    drawn = []
    for row in rows:
        found = row.accuracy or row.speed or {}
        span = (row.accuracy or {}).get("interval", {}).get("miou")
        accuracy = [f"{100 * row.accuracy['miou']:.2f}" if row.accuracy and row.accuracy["miou"] is not None else "-"]
        accuracy.append(f"{100 * span[0]:.1f} to {100 * span[1]:.1f}" if span else "-")
        speed = ["-"] * 4
        if row.speed:
            ms = row.speed["latency_ms"]
            speed = [f"{row.speed['fps']:.0f}", f"{ms['p50']:.2f}", f"{ms['p90']:.2f}", f"{ms['p99']:.2f}"]
        bundle = found["bundle"]
        about = [f"{bundle['target']} {bundle['precision']}", f"{bundle['bytes'] / 1e6:.2f}"]
        drawn.append([row.name, *about, *accuracy, *speed])
    return Table(["bundle", "target", "MB", "mIoU", "95 %", "FPS", "p50 ms", "p90 ms", "p99 ms"], drawn)


def _point(row: Row) -> tuple[str, float, float]:
    assert row.accuracy and row.speed
    return row.name, float(row.speed["latency_ms"]["p50"]), 100 * float(row.accuracy["miou"] or 0)


def _per_class(evals: list[Document]) -> list[Block]:
    first = evals[0]["per_class"]
    alike = [e for e in evals if list(e["per_class"]) == list(first)]
    if len(alike) < 2:
        return []
    rows = [(name, [_percent(e["per_class"][name]["iou"]) for e in alike]) for name in first]
    return [Heading("IoU per class", 3), Bars("IoU, %", [e["bundle"]["name"] for e in alike], rows, "", 100)]


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
