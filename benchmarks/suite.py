"""make bench: the shipped bundles on this machine, several runs, beside the peers; fills the table in README.md.

    python benchmarks/suite.py [--runs 5] [--seconds 6]

Each run benches every bundle and every peer once, so that a slow minute hits all of them. Results go to
results/openvino-cpu.json, a baseline to compare later runs of this machine with. Which figures repeat within 5 %
between runs, and which do not, is part of the result.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peers import benchmark_app, onnxruntime_alone
from rich.console import Console

from edgeseg.bench.measure import STABLE, bench
from edgeseg.bundle import Bundle
from edgeseg.files import write_bytes
from edgeseg.machine import fingerprint
from edgeseg.runtime import open_segmenter
from edgeseg.synth.street import Street

HERE = Path(__file__).parent
MODELS = HERE.parent / "models"
RESULT = HERE / "results" / "openvino-cpu.json"
START, END = "<!-- suite -->", "<!-- /suite -->"
console = Console(stderr=True)


def shipped_bundles() -> list[Path]:
    return sorted(path.parent for path in MODELS.glob("*/*/bundle.json"))


def one_run(seconds: float) -> dict[str, dict[str, float]]:
    """Figures by bundle."""
    frames = [Street(3, height=720, width=1280).frame(t)[0] for t in range(0, 40, 5)]
    rows = {}
    for path in shipped_bundles():
        result = bench(path, frames, seconds)
        row = {"fps": result.fps, "p50_ms": result.latency_ms.p50, "p90_ms": result.latency_ms.p90}
        row |= {"p99_ms": result.latency_ms.p99, "pure_fps": result.pure_fps, "pure_p50_ms": result.pure_latency_ms.p50}
        if benchmark_app.available() and (path / "model.xml").is_file():
            with open_segmenter(path, "throughput") as segmenter:
                slots = segmenter.slots  # as many requests in flight as ours
            wide = benchmark_app.measure(path / "model.xml", "throughput", max(1, round(seconds / 3)), slots)
            narrow = benchmark_app.measure(path / "model.xml", "latency", max(1, round(seconds / 3)), 1)
            row |= {"benchmark_app_fps": wide["fps"], "benchmark_app_p50_ms": narrow["latency_p50_ms"]}
        parent = Bundle.load(path).manifest.parent
        model = path.parent / (parent.file if parent else "")
        if model.is_file() and (alone := onnxruntime_alone.measure(model, seconds / 5)):
            row |= {"onnxruntime_parent_fps": alone["fps"]}
        rows[path.name] = row
        console.print(path.name, {k: round(v, 2) for k, v in row.items()})
    return rows


def summary(runs: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians over the runs, how far they differ, and pure inference against benchmark_app as a median of pairs."""
    bundles = {}
    for name in runs[0]:
        rows = [run[name] for run in runs]
        medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        spread = {key: (max(r[key] for r in rows) - min(r[key] for r in rows)) / medians[key] for key in rows[0]}
        stable = sorted(key for key, value in spread.items() if value <= STABLE)
        ratios = {}
        if "benchmark_app_fps" in rows[0]:
            ratios["pure_fps_over_benchmark_app"] = statistics.median(
                r["pure_fps"] / r["benchmark_app_fps"] for r in rows
            )
            ratios["pure_p50_over_benchmark_app"] = statistics.median(
                r["pure_p50_ms"] / r["benchmark_app_p50_ms"] for r in rows
            )
        bundles[name] = {"median": medians, "spread": spread, "repeat_within_5_percent": stable, **ratios}
    return bundles


def table(result: dict[str, Any]) -> str:
    head = (
        "| bundle | FPS | p50 ms | p99 ms | network alone, FPS | over benchmark_app | ONNX Runtime, float parent, FPS |"
    )
    rows = [head, "| --- | --: | --: | --: | --: | --: | --: |"]
    for name, row in result["bundles"].items():
        m = row["median"]
        over = row.get("pure_fps_over_benchmark_app")
        parent = m.get("onnxruntime_parent_fps")
        cells = [f"{m['fps']:.0f}", f"{m['p50_ms']:.2f}", f"{m['p99_ms']:.2f}", f"{m['pure_fps']:.0f}"]
        cells += ["-" if over is None else f"{over:.2f}", "-" if parent is None else f"{parent:.0f}"]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    machine = result["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    note = f"{result['runs']} runs on {machine['cpu']}, {machine['cores']} cores; {versions}. Medians of the runs."
    return "\n".join([START, *rows, "", note, END])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    runs = [one_run(options.seconds) for _ in range(options.runs)]
    result = {"kind": "suite", "machine": asdict(fingerprint()), "runs": options.runs, "bundles": summary(runs)}
    write_bytes(RESULT, (json.dumps(result, indent=1) + "\n").encode())
    readme = HERE / "README.md"
    text = re.sub(f"{START}.*{END}", lambda _: table(result), readme.read_text(), flags=re.S)
    write_bytes(readme, text.encode())
    console.print(f"wrote {RESULT.relative_to(HERE.parent)} and the table of {readme.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
