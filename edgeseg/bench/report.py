"""Reports: measurements (JSON) in, a page for people out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeseg.bench.blocks import Block, Heading, Picture, Scatter, Table, Text, markdown, page
from edgeseg.data.images import read_image, write_bytes
from edgeseg.errors import FileError, unknown

Document = dict[str, Any]


def write(documents: list[tuple[Path, Document]], out: Path) -> None:
    """Draw documents (the path each was read from, its content) as OUT.html or OUT.md."""
    if out.suffix not in (".html", ".md"):
        raise unknown("report type", out.suffix, (".html", ".md"))
    blocks: list[Block] = [Heading("edgeseg report", 1)]
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
    text = page("edgeseg report", blocks) if out.suffix == ".html" else markdown(blocks)
    write_bytes(out, text.encode())


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
    rows = [[name, *(_pc(row[k]) for k in keys)] for name, row in d["per_class"].items()]
    return [
        Heading(f"Accuracy: {d['bundle']['name']} on {d['data']['root']} {d['data']['split']}"),
        Text(f"mIoU {_pc(d['miou'])}, pixel accuracy {_pc(d['pixel_accuracy'])} over {d['frames']} frames."),
        Table(
            ["class", "IoU", "accuracy", "Dice", "boundary F1"],
            [*rows, ["mean", *(_pc(d[k]) for k in ("miou", "mean_accuracy", "dice", "boundary_f1"))]],
        ),
    ]


def speed(d: Document) -> list[Block]:
    rows = {"latency": d["latency_ms"], **d["stages_ms"], "network alone": d["pure_latency_ms"]}
    return [
        Heading(f"Speed: {d['bundle']['name']} ({d['bundle']['target']} {d['bundle']['precision']})"),
        Text(
            f"{d['fps']:.1f} FPS with full class maps, {d['pure_fps']:.1f} for the network alone: "
            f"{d['fps'] / d['pure_fps']:.2f} of it."
        ),
        Text(_machine(d)),
        Table(
            ["ms", "p50", "p90", "p99"], [[n, *(f"{r[k]:.2f}" for k in ("p50", "p90", "p99"))] for n, r in rows.items()]
        ),
    ]


def stream(d: Document) -> list[Block]:
    rows = [[n, *(f"{r[k]:.2f}" for k in ("p50", "p90", "p99"))] for n, r in d["stages"].items() if r]
    return [
        Heading("Stream"),
        Text(
            f"{d['frames']} frames at {d['fps']:.1f} FPS. It ended: {d.get('result', d.get('ended', 'end of stream'))}."
        ),
        Table(["ms", "p50", "p90", "p99"], rows),
    ]


KINDS = {"pipeline": pipeline, "eval": evaluation, "bench": speed, "run": stream}


def _pictures(path: Path, document: Document) -> list[Block]:
    blocks: list[Block] = []
    for row in document.get("pictures", []):
        file = next((p for p in (path.parent / row["file"], Path(row["file"])) if p.is_file()), None)
        if file is None:
            raise FileError(f"{path} names the picture {row['file']}, which is gone.", "Measure it again.")
        read_image(file)  # what is no picture does not go into the page
        blocks.append(Picture(row["title"], file))
    return [Heading("Pictures", 3), *blocks] if blocks else []


def _machine(d: Document) -> str:
    m = d["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in m["versions"].items())
    return f"Measured on {m['cpu']}, {m['cores']} cores, {m['system']}, Python {m['python']}; {versions}."


def _pc(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
