"""What every compression costs and gains: students through each stage, measured side by side on the test split.

    python benchmarks/compression.py RECIPE... --teacher CKPT --data DIR --out OUT [--seeds 3] [--rounds 5]

Each recipe is a student family. Its student is distilled from the teacher, or one of --distilled; then: FP32, bf16,
INT8 after training (PTQ), INT8 with layers excluded by accuracy control (so many that the whole 95 % interval of its
drop on val is within 0.3 points), quantization-aware training (QAT), and INT8 after pruning to the shares of --macs and
--latency, each fine-tuned with the teacher. The speeds of all bundles are measured interleaved.
With --seeds the first recipe's student is also trained alone and distilled from several seeds, to estimate what the
teacher gains. Finished stages are not repeated. Writes OUT/compression.json and OUT/compression.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from edgeseg.bench.interleaved import interleaved, slowdown
from edgeseg.bundle import Bundle
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import compile_model, golden_frames, spec_of
from edgeseg.data.dataset import Dataset
from edgeseg.evaluation.evaluate import count
from edgeseg.evaluation.metrics import scores
from edgeseg.evaluation.statistics import difference, intervals, miou
from edgeseg.files import sha256, write_bytes
from edgeseg.ledger import Ledger
from edgeseg.machine import fingerprint
from edgeseg.precision import Precision
from edgeseg.quantization.quantize import resolve_ranges
from edgeseg.recipe import PTQ, Qat, Recipe
from edgeseg.report.blocks import Table, markdown
from edgeseg.results.stage import StageResult
from edgeseg.runtime import open_segmenter
from edgeseg.search.control import control
from edgeseg.search.trials import Budget, Trials
from edgeseg.spec import Spec
from edgeseg.target import Target
from edgeseg.training import stages

MAX_DROP = 0.3
UNCHANGED = (Precision.FP32, Precision.BF16, Precision.INT8)  # of the distilled student as it is
console = Console(stderr=True)
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", type=Path)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--distilled", nargs="+", default=[], metavar="ARCH=CKPT", help="students that are already trained"
    )
    parser.add_argument("--target", default="openvino-cpu")
    parser.add_argument(
        "--macs", type=float, nargs="*", default=[0.7, 0.5, 0.3], help="shares of multiply-accumulates to prune to"
    )
    parser.add_argument(
        "--latency", type=float, nargs="+", default=[], help="shares of INT8's latency to prune to, too"
    )
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="to measure each bundle's speed in each round")
    parser.add_argument("--prune-epochs", type=int, default=10)
    parser.add_argument("--latency-epochs", type=int, default=0, help="for --latency; else as many as for --macs")
    parser.add_argument("--latency-rounds", type=int, default=1, help="for --latency: cut and fine-tune so many times")
    parser.add_argument("--qat-epochs", type=int, default=4)
    options = parser.parse_args()
    rows: list[Row] = []
    for path in options.recipes:
        rows += Family(Recipe.load(path), options).rows()
    distillation = gains(Recipe.load(options.recipes[0]), options) if options.seeds else []
    speeds(rows, Dataset.open(options.data, "test"), options.rounds, options.seconds)
    for row in rows:
        row["path"] = Path(row["path"]).name
    result = {"kind": "compression", "machine": dataclasses.asdict(fingerprint()), "data": options.data.name}
    result |= {"rows": rows, "distillation": distillation}
    write_bytes(options.out / "compression.json", (json.dumps(result, indent=1) + "\n").encode())
    write_bytes(options.out / "compression.md", table(result).encode())
    print(table(result))


class Family:
    """One recipe's student, from the teacher to every bundle."""

    def __init__(self, recipe: Recipe, options: argparse.Namespace):
        self.recipe, self.options, self.name = recipe, options, recipe.student.arch
        self.folder: Path = options.out / self.name
        self.ledger = Ledger(self.folder, console.print)
        self.target = Target.load(options.target)
        self.calibration = CalibrationSet.choose(options.data, recipe.quantize.frames, recipe.seed)
        self.test = Dataset.open(options.data, "test")
        distilled = dict(text.split("=", 1) for text in options.distilled)
        self.student = Path(distilled.get(self.name, self.folder / "distilled.pt"))

    def rows(self) -> list[Row]:
        """Every bundle's accuracy; the float one of the distilled student comes first."""
        teacher, out = self.options.teacher, self.folder
        student = self.student
        if student.parent == out:
            self.trained("distilled", self.recipe, [teacher], stages.distill_student)
        model = stages.export_onnx(student, out / "distilled.onnx")
        spec, _ = spec_of(model, {})
        rows = [self.bundle(precision.value, model, precision) for precision in UNCHANGED]
        excluded, ptq, variant = self.controlled(model, spec)
        rows.append({**self.bundle("mixed", model, Precision.INT8, excluded, ptq), "variant": variant})
        qat = dataclasses.replace(self.recipe, qat=Qat(epochs=self.options.qat_epochs))
        trained = self.trained("qat", qat, [student, teacher], stages.qat_student)
        rows.append(self.bundle("qat", stages.export_onnx(trained, out / "qat.onnx"), Precision.INT8))
        fine = dataclasses.replace(self.recipe.prune, epochs=self.options.prune_epochs)
        cuts = {f"pruned{round(100 * share)}": dataclasses.replace(fine, macs=share) for share in self.options.macs}
        for share in self.options.latency:
            more = {"epochs": self.options.latency_epochs or fine.epochs, "rounds": self.options.latency_rounds}
            cuts[f"latency{round(100 * share)}"] = dataclasses.replace(fine, latency=share, **more)
        for name, prune in cuts.items():
            recipe = dataclasses.replace(self.recipe, prune=prune)
            checkpoint = self.trained(name, recipe, [student, teacher], stages.prune_student)
            pruned = stages.export_onnx(checkpoint, out / f"{name}.onnx")
            rows.append(self.bundle(f"{name}-int8", pruned, Precision.INT8, checkpoint=checkpoint))
        return self.compared(rows)

    def trained(self, name: str, recipe: Recipe, parents: list[Path], stage: Callable[..., Path]) -> Path:
        """FOLDER/NAME.pt and its StageResult, of a stage of the recipe."""
        path, scratch = self.folder / f"{name}.pt", self.folder / f"train-{name}"
        settings = recipe.to_dict()
        if stage is not stages.prune_student:
            del settings["prune"]
        inputs = [settings, *(sha256(parent) for parent in parents)]

        def work() -> None:
            checkpoint = stage(recipe, *parents, self.options.data, scratch)
            for suffix in (".pt", ".json"):
                shutil.copyfile(checkpoint.with_suffix(suffix), path.with_suffix(suffix))

        self.ledger.stage(name, inputs, [path], type(None), work)
        return path

    def controlled(self, model: Path, spec: Spec) -> tuple[tuple[str, ...], PTQ, str]:
        """What accuracy control chooses so that val loses at most MAX_DROP with its whole interval: the layers excluded
        from INT8, how INT8 is found, and the name of that variant."""
        val, budget, out = Dataset.open(self.options.data, "val"), Budget(), self.folder / "control"
        trials = Trials(self.folder / "trials", self.target, self.calibration, val, budget, console.print)
        result = control(trials, model, spec, MAX_DROP, out, sure=True)
        (variant,) = (row.variant for row in result.rows if row.name == result.chosen)
        return result.kept, Bundle.load(out).manifest.ptq or PTQ(), variant

    def bundle(
        self,
        name: str,
        model: Path,
        precision: Precision,
        excluded: tuple[str, ...] = (),
        ptq: PTQ = PTQ(),  # noqa: B008  # frozen
        checkpoint: Path | None = None,
    ) -> Row:
        """Compile `model` and count its right and wrong pixels on the test split. `checkpoint`: what it was exported
        from, if not from the distilled student."""
        path, tables = self.folder / "bundles" / f"{self.name}-{name}", self.folder / "bundles" / f"{name}.npy"
        spec, _ = spec_of(model, {})
        calibration = self.calibration if precision.is_int8 and name != "qat" else None

        def work() -> None:
            frames = golden_frames("synthetic", spec)
            compile_model(model, path, self.target, precision, spec=spec, frames=frames, calibration=calibration,
                          excluded=excluded, ptq=ptq)  # fmt: skip
            with open_segmenter(path, "throughput") as segmenter:
                np.save(tables, count(segmenter, self.test)[0].tables())

        settings = dataclasses.asdict(resolve_ranges(ptq, self.target.quantizer)) if calibration else None
        inputs = [sha256(model), precision, excluded, self.calibration.digest, self.test.digest(), settings]
        self.ledger.stage(f"bundle {name}", inputs, [path / "bundle.json", tables], type(None), work)
        macs = StageResult.load((checkpoint or self.student).with_suffix(".json")).macs
        about = {"family": self.name, "name": name, "path": str(path), "kept": list(excluded)}
        return {**about, "macs": macs, "bytes": Bundle.load(path).size, "tables": np.load(tables)}

    def compared(self, rows: list[Row]) -> list[Row]:
        """With the figures of each bundle, and what it lost against the first."""
        names = self.test.classes.names
        first = rows[0]["tables"]
        for row in rows:
            tables = row.pop("tables")
            own, base = scores(tables.sum(0))["iou"], scores(first.sum(0))["iou"]
            worst = max(range(len(names)), key=lambda i: np.nan_to_num(base[i] - own[i]))
            row |= {"miou": float(miou(tables.sum(0))), "interval": intervals(tables, names).miou}
            row |= {"lost": dataclasses.asdict(difference(first, tables, miou))}
            row |= {"worst_class": names[worst], "worst_drop": 100 * float(base[worst] - own[worst])}
        return rows


def speeds(rows: list[Row], test: Dataset, rounds: int, seconds: float) -> None:
    """Add p50, p99 and FPS to each row, measured interleaved. `latency_share`: of the latency of its family's first
    bundle, the median over rounds."""
    frames = [test[i][0] for i in range(min(8, len(test)))]
    paths = [Path(row["path"]) for row in rows]
    measured = interleaved(paths, [frames] * len(rows), rounds * seconds, rounds)
    for row, speed in zip(rows, measured):
        first = measured[[r["family"] for r in rows].index(row["family"])]
        row["p50_ms"], row["p99_ms"], row["fps"] = speed.latency_ms.p50, speed.latency_ms.p99, speed.fps
        row["latency_share"] = slowdown(speed, first)


def gains(recipe: Recipe, options: argparse.Namespace) -> list[Row]:
    """mIoU on test of the student alone and distilled, in float, for each seed."""
    rows = []
    for seed in range(1, options.seeds + 1):
        seeded = dataclasses.replace(recipe, seed=seed)
        family = Family(seeded, options)
        family.folder = options.out / f"seed{seed}"
        family.ledger = Ledger(family.folder, console.print)
        alone = family.trained("student", seeded, [], stages.train_student)
        distilled = family.trained("distilled", seeded, [options.teacher], stages.distill_student)
        row: Row = {"seed": seed}
        for name, checkpoint in (("student", alone), ("distilled", distilled)):
            model = stages.export_onnx(checkpoint, family.folder / f"{name}.onnx")
            row[name] = float(miou(family.bundle(name, model, Precision.FP32, checkpoint=checkpoint)["tables"].sum(0)))
        rows.append(row)
    return rows


def gain(rows: list[Row]) -> str:
    """The mean gain and its 95 % interval: Student's t over seeds."""
    points = [100 * (row["distilled"] - row["student"]) for row in rows]
    mean = statistics.mean(points)
    if len(points) < 2:
        return f"{mean:+.2f} points (one seed)"
    t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}.get(len(points), 2.3)
    half = t * statistics.stdev(points) / len(points) ** 0.5
    each = ", ".join(f"{p:+.2f}" for p in points)
    return f"{mean:+.2f} points ({mean - half:+.2f} to {mean + half:+.2f}; seeds: {each})"


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    head = ["family", "bundle", "mIoU (95 %)", "points lost (95 %)", "worst class", "MB", "GMACs"]
    head += ["p50 ms", "p99 ms", "FPS", "latency of FP32's"]
    text = markdown([Table(head, [list(_cells(row)) for row in result["rows"]])])
    if result["distillation"]:
        text += f"\nDistillation gives the student {gain(result['distillation'])} of mIoU on test.\n"
    return text


def _cells(row: Row) -> Iterator[str]:
    low, high = (100 * v for v in row["interval"])
    lost = row["lost"]
    yield row["family"]
    notes = [row.get("variant", ""), f"{len(row['kept'])} layers excluded" if row["kept"] else ""]
    yield row["name"] + (f" ({', '.join(filter(None, notes))})" if any(notes) else "")
    yield f"{100 * row['miou']:.2f} ({low:.1f} to {high:.1f})"
    yield "{:.2f} ({:.2f} to {:.2f})".format(*(100 * lost[k] for k in ("value", "low", "high")))
    yield f"{row['worst_class']} {row['worst_drop']:+.1f}"
    yield f"{row['bytes'] / 1e6:.2f}"
    yield f"{row['macs'] / 1e9:.3f}"
    yield f"{row['p50_ms']:.2f}"
    yield f"{row['p99_ms']:.2f}"
    yield f"{row['fps']:.0f}"
    yield f"{100 * row['latency_share']:.0f} %"


if __name__ == "__main__":
    main()
