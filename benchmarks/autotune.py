"""Autotune's choice beside every candidate measured exhaustively, on frames that it did not see.

    python benchmarks/autotune.py CHECKPOINT... --data DIR --out OUT --size 384x224 --size 320x192 [--max-drop 1]

Autotune chooses on val. Then every model at every size in every precision, INT8 also with the 1, 2, 4, 8, 16 and 32
noisiest layers excluded, is measured on test: accuracy, and speed for longer. The Pareto front of these measurements is
the true one. Writes OUT/autotune.json and OUT/autotune.html.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from edgeseg.calibration.frames import CalibrationSet
from edgeseg.cli.common import size
from edgeseg.compile import spec_of
from edgeseg.data.dataset import Dataset
from edgeseg.files import write_bytes
from edgeseg.machine import fingerprint
from edgeseg.precision import Precision
from edgeseg.report.blocks import Block, Heading, Table, Text, markdown, page
from edgeseg.report.charts import Scatter
from edgeseg.results.bench import Speed
from edgeseg.results.search import AutotuneResult, pareto_front
from edgeseg.search.autotune import Model, autotune, trial
from edgeseg.search.trials import Budget, Trial, Trials
from edgeseg.target import Target
from edgeseg.training.export import export_onnx

EXCLUDED = (1, 2, 4, 8, 16, 32)  # noisiest layers
console = Console(stderr=True)


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
    chosen = autotune(
        trials(options, "val", options.seconds), models, options.max_drop, options.p99, options.out / "best"
    )
    comparison = Comparison(chosen, exhaustive(trials(options, "test", options.exhaustive_seconds), models))
    write_bytes(options.out / "autotune.json", (json.dumps(comparison.to_dict(), indent=1) + "\n").encode())
    report = blocks(comparison)
    write_bytes(options.out / "autotune.html", page("autotune", report).encode())
    print(markdown(report))


@dataclass(frozen=True)
class Measured(Speed):
    """A candidate measured on test. `bytes`: of its model files."""

    name: str
    miou: float
    bytes: int


@dataclass(frozen=True)
class Comparison:
    """Autotune's result, and every candidate."""

    autotune: AutotuneResult
    rows: list[Measured]

    @property
    def front(self) -> list[str]:
        """Names of the candidates that none beats in both accuracy and speed."""
        return [name for name, _, _ in pareto_front((row.name, row.latency_ms.p50, row.miou) for row in self.rows)]

    @property
    def better(self) -> list[str]:
        """Candidates that beat the chosen one in both."""
        (own,) = (row for row in self.rows if row.name == self.autotune.chosen)
        as_good = (row for row in self.rows if row.latency_ms.p50 <= own.latency_ms.p50 and row.miou >= own.miou)
        return [row.name for row in as_good if (row.latency_ms.p50, row.miou) != (own.latency_ms.p50, own.miou)]

    def to_dict(self) -> dict[str, Any]:
        result = {"kind": "autotune-exhaustive", "machine": asdict(fingerprint()), "autotune": self.autotune.to_dict()}
        return {**result, "rows": [asdict(row) for row in self.rows], "front": self.front, "better": self.better}


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


def exhaustive(folder: Trials, models: list[Model]) -> list[Measured]:
    """Accuracy and speed of every candidate there is."""
    candidates: list[Trial] = []
    for model, spec in models:
        candidates += [trial(model, spec, precision) for precision in folder.target.precisions]
        noise, _ = folder.noise(model, spec)
        excluded = [[row.layer for row in noise[:k]] for k in EXCLUDED if k < len(noise)]
        candidates += [trial(model, spec, Precision.INT8, layers) for layers in excluded]
    outcomes = []
    for number, candidate in enumerate(candidates):
        console.print(f"{candidate.name}, {number + 1} of {len(candidates)}")
        outcomes.append(folder.measure(candidate))
    speeds = folder.speeds(outcomes)
    return [Measured(**vars(speeds[o.trial.name]), name=o.trial.name, miou=o.miou, bytes=o.bytes) for o in outcomes]


def blocks(comparison: Comparison) -> list[Block]:
    chosen, tried = comparison.autotune.chosen, {row.name for row in comparison.autotune.rows}
    front, better = comparison.front, comparison.better

    def notes(name: str) -> str:
        applicable = {"chosen": name == chosen, "front": name in front, "not tried": name not in tried}
        return ", ".join(note for note, applies in applicable.items() if applies)

    rows = [
        [
            row.name,
            notes(row.name),
            f"{100 * row.miou:.2f}",
            f"{row.latency_ms.p50:.2f}",
            f"{row.latency_ms.p99:.2f}",
            f"{row.fps:.0f}",
            f"{row.bytes / 1e6:.2f}",
        ]
        for row in sorted(comparison.rows, key=lambda row: row.latency_ms.p50)
    ]
    conclusion = f"better in both: {', '.join(better)}" if better else "on the true front"
    points = [(row.name, row.latency_ms.p50, 100 * row.miou) for row in comparison.rows]
    return [
        Heading("Autotune beside exhaustive measurement"),
        Text(f"{chosen}: {conclusion}. {len(tried)} candidates tried by autotune, {len(rows)} measured.", True),
        *(Text(line) for line in comparison.autotune.why),
        Scatter("accuracy over latency: up and left is better", "latency p50, ms", "mIoU, %", points),
        Table(["candidate", "", "mIoU on test", "p50 ms", "p99 ms", "FPS", "MB"], rows),
    ]


if __name__ == "__main__":
    main()
