"""Reports: measurements (JSON) in, a page for people out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeseg.errors import FileError, unknown
from edgeseg.files import write_bytes
from edgeseg.images import read_image
from edgeseg.report import search_results
from edgeseg.report.blocks import Block, Heading, Picture, Table, Text, markdown, page
from edgeseg.report.charts import Bars, Heat, Histogram, Scatter, Stack
from edgeseg.report.comparison import compare

Document = dict[str, Any]


def write(documents: list[tuple[Path, Document]], out: Path) -> None:
    """Draw documents (the path each was read from, its content) as OUT.html or OUT.md."""
    if out.suffix not in (".html", ".md"):
        raise unknown("report type", out.suffix, (".html", ".md"))
    blocks: list[Block] = []
    for path, document in documents:
        kind = document.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            raise FileError(f"{path} is no result of edgeseg (kind {kind!r}).", f"Expected one of: {', '.join(KINDS)}.")
        try:
            blocks += KINDS[kind](document)
            blocks += _pictures(path, document)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise FileError(
                f"{path} is not a complete {kind} result: {type(error).__name__} {error}.", "Measure it again."
            ) from error
    blocks = [Heading("edgeseg report", 1), *_compared(documents), *blocks]
    text = page("edgeseg report", blocks) if out.suffix == ".html" else markdown(blocks)
    write_bytes(out, text.encode())


def _compared(documents: list[tuple[Path, Document]]) -> list[Block]:
    try:
        return compare([document for _, document in documents])
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        names = ", ".join(str(path) for path, _ in documents)
        raise FileError(
            f"{names} cannot be compared: {type(error).__name__} {error}.", "Were they made by another version? Again."
        ) from error


def pipeline(d: Document) -> list[Block]:
    first = d["bundles"][0]["target"]
    best = {b["name"]: b for b in d["bundles"]}[d["best"]]
    drops = [
        f"{row['name']} {row['drop'] + 0.0:.2f} points lost ({'within' if row['ok'] else 'OVER'} {row['allowed']})"
        for row in d["int8"]
    ]
    points = [
        (row.get("stage", row["name"]), float(row["latency_ms"]["p50"]), 100 * float(row["miou"]))
        for row in [*d["stages"], *d["bundles"]]
        if row["target"] == first
    ]
    return [
        Heading(f"Pipeline {d['name']}"),
        Text(
            f"{best['name']} reaches {100 * best['miou']:.2f} mIoU on {d['data']['test_frames']} test frames at "
            f"{best['fps']:.0f} FPS with {best['bytes'] / 1e6:.2f} MB."
        ),
        Text(f"INT8 against FP32: {'; '.join(drops) or 'not measured'}."),
        Text(_machine(d)),
        Heading("From teacher to student", 3),
        Table(
            ["stage", "mIoU", "GMACs", "params", "MB", "FPS", "p50 ms", "trained s"],
            [
                [
                    s["stage"],
                    _pc(s["miou"]),
                    f"{s['macs'] / 1e9:.3f}",
                    f"{s['params'] / 1e6:.2f} M",
                    f"{s['bytes'] / 1e6:.2f}",
                    f"{s['fps']:.0f}",
                    f"{s['latency_ms']['p50']:.2f}",
                    f"{s['seconds']:.0f}",
                ]
                for s in d["stages"]
            ],
        ),
        Heading("Bundles", 3),
        Table(
            ["bundle", "mIoU", "boundary F1", "parity", "MB", "FPS", "network alone", "p50 ms", "p99 ms"],
            [
                [
                    b["name"],
                    _pc(b["miou"]),
                    _pc(b["boundary_f1"]),
                    _pc(b["parity"]["agreement"]),
                    f"{b['bytes'] / 1e6:.2f}",
                    f"{b['fps']:.0f}",
                    f"{b['pure_fps']:.0f}",
                    f"{b['latency_ms']['p50']:.2f}",
                    f"{b['latency_ms']['p99']:.2f}",
                ]
                for b in d["bundles"]
            ],
        ),
        Scatter(f"accuracy over latency on {first}: up and left is better", "latency p50, ms", "mIoU, %", points),
        Heading("IoU per class", 3),
        Table(
            ["class", *(b["name"] for b in d["bundles"])],
            [[name, *(_pc(b["per_class"][name]["iou"]) for b in d["bundles"])] for name in best["per_class"]],
        ),
    ]


def evaluation(d: Document) -> list[Block]:
    keys = ("iou", "accuracy", "dice", "boundary_f1")
    spans = d["interval"]
    rows = [
        [name, _pc(row["iou"]), _span(spans["iou"][name]), *(_pc(row[k]) for k in keys[1:])]
        for name, row in d["per_class"].items()
    ]
    means = [_pc(d["miou"]), _span(spans["miou"]), *(_pc(d[k]) for k in ("mean_accuracy", "dice", "boundary_f1"))]
    blocks: list[Block] = [
        Heading(f"Accuracy: {d['bundle']['name']} on {d['data']['root']} {d['data']['split']}"),
        Text(
            f"mIoU {_pc(d['miou'])} ({_span(spans['miou'])} with 95 % certainty), pixel accuracy "
            f"{_pc(d['pixel_accuracy'])} over {d['frames']} frames."
        ),
        Table(["class", "IoU", "95 %", "accuracy", "Dice", "boundary F1"], [*rows, ["mean", *means]]),
    ]
    return blocks + _errors(d) if "errors" in d else blocks


def _errors(d: Document) -> list[Block]:
    """Where the model errs: confusion, edges, objects, slices."""
    names, errors = list(d["per_class"]), d["errors"]
    shares = [[n / max(1, sum(row)) for n in row] for row in d["confusion"]]
    edges = [
        (f"{row['upto_px']} px" if row["upto_px"] else "further", [100 * row["accuracy"] if row["pixels"] else None])
        for row in errors["edges"]
    ]
    sizes = [f"under {100 * row['upto_area']:g} %" for row in errors["objects"][names[0]]]
    objects = [
        [
            name,
            *(f"{_pc(row['found'])} of {row['objects']}" if row["objects"] else "-" for row in errors["objects"][name]),
        ]
        for name in names
    ]
    slices = [
        [row["slice"], str(row["frames"]), _pc(row["miou"]), _pc(row["pixel_accuracy"])] for row in errors["slices"]
    ]
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


def speed(d: Document) -> list[Block]:
    rows = {"single stream": d["latency_ms"], f"{d['streams']} streams at once": d["multi_stream_ms"]}
    rows |= {**d["stages_ms"], "network alone": d["pure_latency_ms"]}
    where = f" on {d['host']}" if "host" in d else ""
    histogram, way = d["histogram"], d.get("waterfall") or d["stages_ms"]
    blocks: list[Block] = [
        Heading(f"Speed: {d['bundle']['name']} ({d['bundle']['target']} {d['bundle']['precision']}){where}"),
        Text(
            f"{d['fps']:.1f} FPS with full class maps, {d['pure_fps']:.1f} for the network alone: "
            f"{d['fps'] / d['pure_fps']:.2f} of it. {d['samples']} single-stream frames."
        ),
        Text(_machine(d)),
        Stack("where a frame's time goes, medians", [("one frame", _waterfall(way))]),
        *([Text(d["advice"], strong=True)] if d.get("advice") else []),
        Histogram(
            "frames by latency, single stream",
            histogram["from_ms"],
            histogram["to_ms"],
            histogram["counts"],
            [(k, d["latency_ms"][k]) for k in POINTS],
        ),
        Table(["ms", *POINTS], [[n, *(f"{r[k]:.2f}" for k in POINTS)] for n, r in rows.items()]),
        Text(_stability(d)),
    ]
    if found := d.get("cold_start"):
        memory = f"{found['peak_memory_mb']:.0f} MB of memory at most"
        blocks.append(Text(f"First mask {found['first_mask_s']:.2f} s after process start; {memory}."))
    if found := d.get("sustained"):
        minutes = [(f"minute {i}", [fps]) for i, fps in enumerate(found["minutes_fps"], 1)]
        title = f"full load; the last minute reaches {found['last_over_first']:.2f} of the first"
        blocks.append(Bars(title, ["FPS"], minutes, " FPS"))
    return blocks + [Text(line) for line in _device(d["device"])]


def _waterfall(stages: dict[str, Any]) -> dict[str, float]:
    return {name: float(row["p50"]) for name, row in stages.items() if row and name != "age"}


def _stability(d: Document) -> str:
    if not d["unstable"]:
        return "All figures repeat within 5 % between the rounds of this run."
    spread = ", ".join(f"{name} {100 * d['spread'][name]:.0f} %" for name in d["unstable"])
    return f"Unstable, rounds differ by more than 5 %: {spread}. Compare these with care."


def _device(device: dict[str, Any]) -> list[str]:
    units = {"celsius": "degrees Celsius", "cpu_mhz": "MHz (CPU)", "gpu_mhz": "MHz (GPU)", "watts": "watts"}
    told = [f"{row['first']:g} to {row['last']:g} {units[key]}" for key, row in device.items() if key in units and row]
    lines = [f"During the run: {', '.join(told)}."] if told else []
    if device["joules_per_frame"] is not None:
        lines.append(f"{1000 * device['joules_per_frame']:.1f} mJ a frame, idle draw included.")
    return [*lines, *([f"The device throttled: {device['throttled']}."] if device["throttled"] else [])]


def stream(d: Document) -> list[Block]:
    rows = [[n, *(f"{r[k]:.2f}" for k in POINTS)] for n, r in d["stages"].items() if r]
    parts = _waterfall(d["stages"])
    return [
        Heading("Stream"),
        Text(
            f"{d['frames']} frames at {d['fps']:.1f} FPS. It ended: {d.get('result', d.get('ended', 'end of stream'))}."
        ),
        *(
            [Stack("where a frame's time goes, medians; stages work at the same time", [("one frame", parts)])]
            if parts
            else []
        ),
        Table(["ms", *POINTS], rows),
    ]


def gate(d: Document) -> list[Block]:
    against = f" against {d['against']}" if d["against"] else ""
    return [
        Heading(f"Gate: {d['bundle']}{against}"),
        Text(
            f"{d['verdict'].upper()} on {d['data']['frames']} frames of {d['data']['root']} {d['data']['split']}.", True
        ),
        Table(["check", "verdict", "measured"], [[c["name"], c["verdict"], c["text"]] for c in d["checks"]]),
    ]


def benches(d: Document) -> list[Block]:
    return [block for one in d["hosts"] for block in speed(one)]


KINDS = {
    "pipeline": pipeline,
    "eval": evaluation,
    "bench": speed,
    "run": stream,
    "gate": gate,
    "benches": benches,
    "control": search_results.control,
    "autotune": search_results.autotune,
}
POINTS = ("p50", "p90", "p99")


def _pictures(path: Path, document: Document) -> list[Block]:
    blocks: list[Block] = []
    for row in document.get("pictures", []):
        file = next((p for p in (path.parent / row["file"], Path(row["file"])) if p.is_file()), None)
        if file is None:
            raise FileError(f"{path} names the picture {row['file']}, which is gone.", "Measure it again.")
        read_image(file)  # what is no picture does not go into the page
        blocks.append(Picture(row["title"], file))
    return [Heading("Pictures", 3), *blocks] if blocks else []


def _span(ends: list[float] | None) -> str:
    return "-" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"


def _machine(d: Document) -> str:
    m = d["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in m["versions"].items())
    board = "".join(f"{m[k]}, " for k in ("board", "power_mode") if k in m)
    return f"Measured on {board}{m['cpu']}, {m['cores']} cores, {m['system']}, Python {m['python']}; {versions}."


def _pc(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
