"""Results of control and autotune, drawn for people."""

from __future__ import annotations

from collections.abc import Sequence

from edgeseg.report.blocks import Block, Heading, Table, Text
from edgeseg.report.charts import Scatter
from edgeseg.results.search import AutotuneResult, Candidate, ControlResult


def control(d: ControlResult) -> list[Block]:
    """What was tried, each layer's noise, and which layers are excluded."""
    data, drop = d.data, d.drop
    rows = [
        [
            f"{row.k}{' (chosen)' if row.name == d.chosen else ''}",
            row.variant or "-",
            f"{100 * row.miou:.2f}",
            str(row.drop),
            f"{row.latency_ms.p50:.2f}",
            f"{row.bytes / 1e6:.2f}",
            f"{row.seconds:.0f}",
        ]
        for row in d.rows
    ]
    noise = [
        [row.layer, row.operator, f"{row.sqnr_db:.1f}", "excluded" if row.layer in d.kept else "INT8"]
        for row in d.noise
    ]
    excluded = f"{len(d.kept)} layers excluded from INT8" if d.kept else "every layer in INT8"
    return [
        Heading(f"Accuracy control: {excluded}"),
        Text(
            f"{drop} points of mIoU lost, {d.max_drop:g} allowed"
            f"{' for the whole interval' if d.sure else ''}: {'held' if d.held else 'NOT held'}. "
            f"Measured on {data.frames} frames of {data.root} {data.split} through {d.measured_by}.",
            True,
        ),
        *([Text(f"Stopped early: {d.stopped}.", True)] if d.stopped else []),
        Table(["excluded layers", "variant", "mIoU", "points lost (95 %)", "p50 ms", "MB", "seconds"], rows),
        Heading("Noise of INT8 at the logits, layer by layer", 3),
        Table(["layer", "operator", "SQNR dB", ""], noise)
        if noise
        else Text("No layer was ranked: none had to be excluded."),
    ]


def autotune(d: AutotuneResult) -> list[Block]:
    """The choice and why, every candidate, and their front. ValueError where there is none."""
    if not d.rows:
        raise ValueError("no candidates")
    limit = f"{d.max_drop:g} points of mIoU may be lost{', with the whole interval' if d.sure else ''}"
    limit += f", p99 {d.p99:g} ms" if d.p99 is not None else ""
    table = [
        [
            row.name,
            "front" if row.name in d.front else "",
            f"{100 * row.miou:.2f}",
            str(row.drop),
            f"{row.latency_ms.p50:.2f}",
            f"{row.latency_ms.p99:.2f}",
            f"{row.fps:.0f}",
            f"{row.bytes / 1e6:.2f}",
            ", ".join(row.kept) or "-",
        ]
        for row in d.rows
    ]
    data = d.data
    return [
        Heading(f"Autotune for {d.target}"),
        Text(f"{d.chosen} is {'chosen' if d.held else 'the best, but beyond the limits'}.", True),
        *(Text(line) for line in d.why),
        Text(
            f"{limit}. Accuracy on {data.frames} frames of {data.root} {data.split}; "
            f"speed of {d.measured_by} on {d.machine.cpu}, {d.machine.cores} cores."
        ),
        *([Text(f"Not everything was measured: {d.stopped}.", True)] if d.stopped else []),
        scatter(d.rows),
        Table(["candidate", "", "mIoU", "points lost (95 %)", "p50 ms", "p99 ms", "FPS", "MB", "excluded"], table),
    ]


def scatter(rows: Sequence[Candidate]) -> Scatter:
    """Candidates by latency and mIoU."""
    points = [(row.name, row.latency_ms.p50, 100 * row.miou) for row in rows]
    return Scatter("accuracy over latency: up and left is better", "latency p50, ms", "mIoU, %", points)
