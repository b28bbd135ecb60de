"""One drawing for each type of result: the blocks of a report, the heading first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeseg.report import search_results
from edgeseg.report.accuracy import accuracy
from edgeseg.report.blocks import Block, Heading, Table, Text
from edgeseg.report.charts import Bars, Heat, Histogram, Scatter, Stack
from edgeseg.report.check import check
from edgeseg.results.accuracy import AccuracyResult
from edgeseg.results.bench import BenchResult, DeviceLog, HostsResult
from edgeseg.results.check import CheckResult
from edgeseg.results.common import Interval, Machine
from edgeseg.results.evaluation import ErrorStudy, EvalResult, SliceScores
from edgeseg.results.gate import GateResult
from edgeseg.results.pipeline import PipelineResult
from edgeseg.results.search import AutotuneResult, ControlResult
from edgeseg.stream.summary import RunSummary
from edgeseg.timing import POINTS, Percentiles


def draw(result: Any) -> list[Block]:
    """The blocks of any result."""
    return DRAWINGS[type(result)](result)


def pipeline(d: PipelineResult) -> list[Block]:
    first = d.bundles[0].target
    best = {b.name: b for b in d.bundles}[d.best]
    drops = [
        f"{row.name} {row.drop + 0.0:.2f} points lost ({'within' if row.ok else 'OVER'} {row.allowed})"
        for row in d.int8
    ]
    named = [*((s.stage, s) for s in d.stages), *((b.name, b) for b in d.bundles)]
    points = [(name, row.latency_ms.p50, 100 * (row.miou or 0.0)) for name, row in named if row.target == first]
    return [
        Heading(f"Pipeline {d.name}"),
        Text(
            f"{best.name} reaches {_pc(best.miou)} mIoU on {d.data.test_frames} test frames at "
            f"{best.fps:.0f} FPS with {best.bytes / 1e6:.2f} MB."
        ),
        Text(f"INT8 against FP32: {'; '.join(drops) or 'not measured'}."),
        Text(_machine(d.machine)),
        Heading("From teacher to student", 3),
        Table(
            ["stage", "mIoU", "GMACs", "params", "MB", "FPS", "p50 ms", "trained s"],
            [
                [
                    s.stage,
                    _pc(s.miou),
                    f"{s.macs / 1e9:.3f}",
                    f"{s.params / 1e6:.2f} M",
                    f"{s.bytes / 1e6:.2f}",
                    f"{s.fps:.0f}",
                    f"{s.latency_ms.p50:.2f}",
                    f"{s.seconds:.0f}",
                ]
                for s in d.stages
            ],
        ),
        Heading("Bundles", 3),
        Table(
            ["bundle", "mIoU", "boundary F1", "parity", "MB", "FPS", "network alone", "p50 ms", "p99 ms"],
            [
                [
                    b.name,
                    _pc(b.miou),
                    _pc(b.boundary_f1),
                    _pc(b.parity.agreement),
                    f"{b.bytes / 1e6:.2f}",
                    f"{b.fps:.0f}",
                    f"{b.pure_fps:.0f}",
                    f"{b.latency_ms.p50:.2f}",
                    f"{b.latency_ms.p99:.2f}",
                ]
                for b in d.bundles
            ],
        ),
        Scatter(f"accuracy over latency on {first}: up and left is better", "latency p50, ms", "mIoU, %", points),
        Heading("IoU per class", 3),
        Table(
            ["class", *(b.name for b in d.bundles)],
            [[name, *(_pc(b.per_class[name].iou) for b in d.bundles)] for name in best.per_class],
        ),
    ]


def evaluation(d: EvalResult) -> list[Block]:
    rows = [
        [name, _pc(row.iou), _span(d.interval.iou[name]), *map(_pc, (row.accuracy, row.dice, row.boundary_f1))]
        for name, row in d.per_class.items()
    ]
    span = _span(d.interval.miou)
    means = [_pc(d.miou), span, *map(_pc, (d.mean_accuracy, d.dice, d.boundary_f1))]
    what = d.bundle.name if d.bundle else "a model"
    where = f"{d.data.root} {d.data.split}" if d.data else "a dataset"
    blocks: list[Block] = [
        Heading(f"Accuracy: {what} on {where}"),
        Text(
            f"mIoU {_pc(d.miou)} (95 % interval {span}), pixel accuracy {_pc(d.pixel_accuracy)} over {d.frames} frames"
            + (f", measured {d.backend}, not on the bundle's device." if d.backend.startswith("through") else ".")
        ),
        Table(["class", "IoU", "95 %", "accuracy", "Dice", "boundary F1"], [*rows, ["mean", *means]]),
    ]
    blocks += by_slice(d.slices)
    return blocks + _errors(d, d.errors) if d.errors else blocks


def by_slice(slices: Sequence[SliceScores]) -> list[Block]:
    """The scores of every slice, with the IoU of each class; nothing where there is none."""
    rows = [
        [part.slice, str(part.frames), _pc(part.miou), _span(part.interval), *(_pc(v) for v in part.iou.values())]
        for part in slices
    ]
    return [Heading("By slice", 3), Table(["slice", "frames", "mIoU", "95 %", *slices[0].iou], rows)] if rows else []


def _errors(d: EvalResult, errors: ErrorStudy) -> list[Block]:
    """Where the model errs: confusion, edges, objects, slices."""
    names = list(d.per_class)
    shares = [[n / max(1, sum(row)) for n in row] for row in d.confusion]
    edges = [
        (f"{row.upto_px} px" if row.upto_px else "further", [None if row.accuracy is None else 100 * row.accuracy])
        for row in errors.edges
    ]
    sizes = [f"under {100 * row.upto_area:g} %" for row in errors.objects[names[0]]]
    objects = [
        [
            name,
            *(f"{_pc(row.found)} of {row.objects}" if row.objects else "-" for row in errors.objects[name]),
        ]
        for name in names
    ]
    slices = [[row.slice, str(row.frames), _pc(row.miou), _pc(row.pixel_accuracy)] for row in errors.slices]
    return [
        Heading("What is taken for what", 3),
        Heat("rows: the truth; columns: the prediction; % of the truth's pixels", names, shares),
        Heading("Near edges and inside", 3),
        Bars("pixels right, by their distance to the nearest edge between two labels", ["right"], edges, " %", 100),
        Heading("Objects found, by their size in the frame", 3),
        Text("An object is a connected region of one class; it is found when half of its pixels are right."),
        Table(["class", *sizes], objects),
        Heading("Dark and bright frames", 3),
        Table(["slice", "frames", "mIoU", "pixel accuracy"], slices),
    ]


def speed(d: BenchResult) -> list[Block]:
    rows = {"single stream": d.latency_ms, f"{d.streams} streams at once": d.multi_stream_ms}
    rows |= {**d.stages_ms, "network alone": d.pure_latency_ms}
    where = f" on {d.host}" if d.host else ""
    what = f"{d.bundle.name} ({d.bundle.target} {d.bundle.precision})" if d.bundle else "a bundle"
    blocks: list[Block] = [
        Heading(f"Speed: {what}{where}"),
        Text(
            f"{d.fps:.1f} FPS with full class maps, {d.pure_fps:.1f} for the network alone: "
            f"{d.fps / d.pure_fps:.2f} of it. {d.samples} single-stream frames."
        ),
        *([Text(_machine(d.machine))] if d.machine else []),
        Stack("where a frame's time goes, medians", [("one frame", _waterfall(d.waterfall or d.stages_ms))]),
        *([Text(d.advice, strong=True)] if d.advice else []),
        Histogram(
            "frames by latency, single stream",
            d.histogram.from_ms,
            d.histogram.to_ms,
            d.histogram.counts,
            list(zip(POINTS, d.latency_ms.values())),
        ),
        Table(["ms", *POINTS], [[name, *(f"{ms:.2f}" for ms in row.values())] for name, row in rows.items()]),
        Text(_stability(d)),
    ]
    if start := d.cold_start:
        memory = f"{start.peak_memory_mb:.0f} MB of memory at most"
        blocks.append(Text(f"First mask {start.first_mask_s:.2f} s after process start; {memory}."))
    if load := d.sustained:
        minutes = [(f"minute {i}", [fps]) for i, fps in enumerate(load.minutes_fps, 1)]
        title = f"full load; the last minute reaches {load.last_over_first:.2f} of the first"
        blocks.append(Bars(title, ["FPS"], minutes, " FPS"))
    return blocks + [Text(line) for line in _device(d.device)]


def _waterfall(stages: Mapping[str, Percentiles]) -> dict[str, float]:
    return {name: row.p50 for name, row in stages.items() if name != "age"}


def _stability(d: BenchResult) -> str:
    if not d.unstable:
        return "All figures repeat within 5 % between the rounds of this run."
    spread = ", ".join(f"{name} {100 * d.spread[name]:.0f} %" for name in d.unstable)
    return f"Unstable, rounds differ by more than 5 %: {spread}. Compare these with care."


def _device(device: DeviceLog) -> list[str]:
    readings = {"°C": device.celsius, "MHz (CPU)": device.cpu_mhz, "MHz (GPU)": device.gpu_mhz, "W": device.watts}
    spans = [f"{row.first:g} to {row.last:g} {unit}" for unit, row in readings.items() if row]
    lines = [f"During the run: {', '.join(spans)}."] if spans else []
    if device.joules_per_frame is not None:
        lines.append(f"{1000 * device.joules_per_frame:.1f} mJ a frame, idle draw included.")
    return [*lines, *([f"The device throttled: {device.throttled}."] if device.throttled else [])]


def stream(d: RunSummary) -> list[Block]:
    rows = [[name, *(f"{ms:.2f}" for ms in (row.p50, row.p90, row.p99))] for name, row in d.stages.items()]
    parts = _waterfall(d.stages)
    return [
        Heading("Stream"),
        Text(f"{d.frames} frames at {d.fps:.1f} FPS. It ended: {d.result}."),
        *(
            [Stack("where a frame's time goes, medians; stages work at the same time", [("one frame", parts)])]
            if parts
            else []
        ),
        Table(["ms", *POINTS], rows),
    ]


def gate(d: GateResult) -> list[Block]:
    against = f" against {d.against}" if d.against else ""
    return [
        Heading(f"Gate: {d.bundle}{against}"),
        Text(f"{d.verdict.upper()} on {d.data.frames} frames of {d.data.root} {d.data.split}.", True),
        Table(["check", "verdict", "measured"], [[c.name, c.verdict, c.text] for c in d.checks]),
        *by_slice(d.slices),
    ]


def hosts(d: HostsResult) -> list[Block]:
    return [block for one in d.hosts for block in speed(one)]


def _span(ends: Interval | None) -> str:
    return "-" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"


def _machine(m: Machine) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in m.versions.items())
    board = "".join(f"{part}, " for part in (m.board, m.power_mode) if part)
    return f"Measured on {board}{m.cpu}, {m.cores} cores, {m.system}, Python {m.python}; {versions}."


def _pc(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


DRAWINGS: dict[type[Any], Callable[[Any], list[Block]]] = {
    PipelineResult: pipeline,
    EvalResult: evaluation,
    BenchResult: speed,
    HostsResult: hosts,
    RunSummary: stream,
    GateResult: gate,
    ControlResult: search_results.control,
    AutotuneResult: search_results.autotune,
    CheckResult: check,
    AccuracyResult: accuracy,
}
