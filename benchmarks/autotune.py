"""Autotune's choice beside every candidate measured exhaustively, on frames that it did not see.

    python benchmarks/autotune.py CHECKPOINT... --data DIR --out OUT --size 384x224 --size 320x192 [--max-drop 1]

Autotune chooses on val. Then every model at every size in every precision, INT8 also with the 1, 2, 4, 8, 16 and 32
noisiest layers in float, is measured on test: accuracy, and speed in many more turns. The front of that is the true
one. OUT/autotune.json and OUT/autotune.html.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from edgeseg.calibration.frames import CalibrationSet
from edgeseg.cli.common import size
from edgeseg.compile import spec_of
from edgeseg.data.dataset import Dataset
from edgeseg.files import write_bytes
from edgeseg.machine import fingerprint
from edgeseg.report.blocks import Heading, Table, Text, markdown, page
from edgeseg.report.search_results import scatter
from edgeseg.search.autotune import Model, autotune, trial
from edgeseg.search.trials import Budget, Trial, Trials
from edgeseg.target import Target
from edgeseg.training.export import export_onnx

KEPT = (1, 2, 4, 8, 16, 32)
console = Console(stderr=True)
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", action="append", required=True)
    parser.add_argument("--target", default="openvino-cpu")
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--p99", type=float)
    parser.add_argument("--seconds", type=float, default=4.0, help="per candidate, for autotune")
    parser.add_argument("--exhaustive-seconds", type=float, default=12.0)
    options = parser.parse_args()
    models = list(sized(options))
    found = autotune(
        trials(options, "val", options.seconds), models, options.max_drop, options.p99, options.out / "best"
    )
    rows = exhaustive(trials(options, "test", options.exhaustive_seconds), models)
    result = {"kind": "autotune-exhaustive", "machine": fingerprint(), "autotune": found, "rows": rows}
    result |= {"front": [name for name, _, _ in scatter(rows).front()], "better": better(rows, found["chosen"])}
    write_bytes(options.out / "autotune.json", (json.dumps(result, indent=1) + "\n").encode())
    drawn = blocks(result)
    write_bytes(options.out / "autotune.html", page("autotune", drawn).encode())
    print(markdown(drawn))


def sized(options: argparse.Namespace) -> Iterator[Model]:
    """Every checkpoint at every size, the largest first."""
    for checkpoint in options.checkpoints:
        for height, width in sorted(map(size, options.size), reverse=True):
            folder = options.out / "models" / f"{width}x{height}"
            model = export_onnx(checkpoint, folder / f"{checkpoint.stem}.onnx", (height, width))
            yield model, spec_of(model, {})[0]


def trials(options: argparse.Namespace, split: str, seconds: float) -> Trials:
    target, data = Target.load(options.target), Dataset.open(options.data, split)
    calibration = CalibrationSet.choose(options.data, 64)
    return Trials(options.out / split, target, calibration, data, Budget(), lambda text: None, seconds)


def exhaustive(folder: Trials, models: list[Model]) -> list[Row]:
    """Accuracy and speed of every candidate there is."""
    candidates: list[Trial] = []
    for model, spec in models:
        candidates += [trial(model, spec, precision) for precision in folder.target.precisions]
        noise, _ = folder.noise(model, spec)
        kept = [[row.layer for row in noise[:k]] for k in KEPT if k < len(noise)]
        candidates += [trial(model, spec, "int8", layers) for layers in kept]
    outcomes = []
    for number, candidate in enumerate(candidates):
        console.print(f"{candidate.name}, {number + 1} of {len(candidates)}")
        outcomes.append(folder.measure(candidate))
    speeds = folder.speeds(outcomes)
    return [{"name": o.trial.name, "miou": o.miou, "bytes": o.bytes, **speeds[o.trial.name]} for o in outcomes]


def better(rows: list[Row], chosen: str) -> list[str]:
    """Candidates that beat the chosen one in both."""
    (own,) = (row for row in rows if row["name"] == chosen)
    found = []
    for row in rows:
        faster = row["latency_ms"]["p50"] - own["latency_ms"]["p50"]
        if faster <= 0 and row["miou"] >= own["miou"] and (faster or row["miou"] > own["miou"]):
            found.append(row["name"])
    return found


def blocks(result: Row) -> list[Any]:
    chosen, names = result["autotune"]["chosen"], {row["name"] for row in result["autotune"]["rows"]}
    rows = [
        [
            row["name"],
            ", ".join(
                word
                for word, there in (
                    ("chosen", row["name"] == chosen),
                    ("front", row["name"] in result["front"]),
                    ("not tried", row["name"] not in names),
                )
                if there
            ),
            f"{100 * row['miou']:.2f}",
            *(f"{row['latency_ms'][key]:.2f}" for key in ("p50", "p99")),
            f"{row['fps']:.0f}",
            f"{row['bytes'] / 1e6:.2f}",
        ]
        for row in sorted(result["rows"], key=lambda row: float(row["latency_ms"]["p50"]))
    ]
    verdict = f"better in both: {', '.join(result['better'])}" if result["better"] else "on the true front"
    return [
        Heading("Autotune beside exhaustive measurement"),
        Text(f"{chosen}: {verdict}. {len(names)} candidates tried by autotune, {len(rows)} measured.", True),
        *(Text(line) for line in result["autotune"]["why"]),
        scatter(result["rows"]),
        Table(["candidate", "", "mIoU on test", "p50 ms", "p99 ms", "FPS", "MB"], rows),
    ]


if __name__ == "__main__":
    main()
