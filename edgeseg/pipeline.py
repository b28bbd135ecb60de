"""pipeline: the stages of a recipe, one after another, each skipped while its inputs have not changed.

OUT/data/                 rendered frames, where the recipe asks for them
OUT/{teacher,student,distilled,pruned}.pt, and qat.pt where the recipe trains with INT8's rounding
OUT/models/STAGE.onnx and OUT/models/STAGE-fp32/: each of them compiled for the first target and measured
OUT/NAME.onnx             the float parent of what is deployed, OUT/NAME-qat.onnx the one of INT8 by that training
OUT/bundles/              one bundle per target and precision
OUT/ledger.json           what each stage was made from; OUT/report.{json,html,md}
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from edgeseg import target
from edgeseg.bench.measure import bench
from edgeseg.bundle import MANIFEST, Bundle
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import GOLDEN_FRAMES, PARITY_FRAMES, compile_model, golden_frames, held_out, spec_of
from edgeseg.data.dataset import Dataset
from edgeseg.data.datasheet import read_datasheet
from edgeseg.evaluation.pictures import strips
from edgeseg.files import require_file, sha256, write_bytes
from edgeseg.images import read_image, write_image
from edgeseg.ledger import Ledger
from edgeseg.machine import fingerprint
from edgeseg.precision import Precision
from edgeseg.profiling.measure import timing_target
from edgeseg.quantization.quantize import schemes_of_training
from edgeseg.recipe import PTQ, Recipe, Role, Targets
from edgeseg.results.common import Picture
from edgeseg.results.pipeline import Int8Drop, MeasuredBundle, MeasuredStage, PipelineData, PipelineResult
from edgeseg.results.stage import StageResult
from edgeseg.runtime import open_segmenter
from edgeseg.telemetry import mlflow_run

STAGES = ("teacher", "student", "distilled", "pruned")
BENCH_SECONDS = 4.0
PICTURES = 4
Log = Callable[[str], None]


def run(recipe: Recipe, out: Path, log: Log) -> PipelineResult:
    """Every stage of the recipe into `out`; the result, which is also written there as report.json."""
    return _Stages(recipe, out, log).run()


def bundle_name(recipe: Recipe, profile: target.Target, precision: Precision) -> str:
    """NAME-PRECISION for the recipe's first target, NAME-TARGET-PRECISION for the others."""
    first = recipe.targets.compile[0].split(":")[0]
    return f"{recipe.name}-{precision}" if profile.name == first else f"{recipe.name}-{profile.name}-{precision}"


def is_of_training(recipe: Recipe, profile: target.Target, precision: Precision) -> bool:
    """Whether that bundle is made of the network that was trained with INT8's rounding, without calibration."""
    trained = bool(recipe.qat.epochs) and precision.is_int8
    return trained and profile.quantizer in schemes_of_training(recipe.qat.symmetric)


class _Stages:
    """One run of a recipe: what its stages share."""

    def __init__(self, recipe: Recipe, out: Path, log: Log):
        self.recipe, self.out, self.log = recipe, out, log
        self.pairs = [target.split(entry) for entry in recipe.targets.compile]
        self.ledger = Ledger(out, log)
        self.root = self._data()
        self.datasheet = read_datasheet(self.root)
        self.test = Dataset.open(self.root, "test")
        self.data = {split: Dataset.open(self.root, split).digest() for split in ("train", "val", "test")}
        self.checkpoints: dict[str, str] = {}  # digests, by stage

    def run(self) -> PipelineResult:
        self._train()
        stages = [self._measure_stage(stage) for stage in STAGES]
        shutil.copyfile(self.out / "models" / "pruned.onnx", self.out / f"{self.recipe.name}.onnx")
        calibration = CalibrationSet.choose(self.root, self.recipe.quantize.frames, self.recipe.seed)
        bundles = [self._bundle(profile, precision, calibration) for profile, precision in self.pairs]
        fastest = min((b for b in bundles if b.target == self.pairs[0][0].name), key=lambda b: b.latency_ms.p50)
        result = PipelineResult(
            name=self.recipe.name,
            best=fastest.name,
            miou=fastest.miou,
            pixel_accuracy=fastest.pixel_accuracy,
            latency_ms=fastest.latency_ms,
            fps=fastest.fps,
            recipe=self.recipe.to_dict(),
            machine=fingerprint(),
            data=PipelineData(len(self.test), self.data, self.datasheet),
            calibration=vars(calibration.identity),
            stages=tuple(stages),
            bundles=tuple(bundles),
            int8=_drops(bundles, self.recipe.quantize.max_drop),
            seconds={name: entry.seconds for name, entry in self.ledger.entries.items()},
            pictures=_pictures(Path(bundles[-1].path), self.test, self.out),
        )
        result.save(self.out / "report.json")
        if self.recipe.machine.track == "mlflow":
            note_bundles(result, self.out / ("qat" if self.recipe.qat.epochs else "pruned"))
        return result

    def _data(self) -> Path:
        data = self.recipe.data
        if data.synthetic is None:
            return self.recipe.resolve(data.root)
        from edgeseg.synth.files import write_dataset

        root, counts = self.out / "data", asdict(data.synthetic)
        height, width = data.size

        def render() -> None:
            shutil.rmtree(root, ignore_errors=True)
            write_dataset(root, **counts, height=height, width=width)

        self.ledger.stage("render", {**counts, "size": [height, width]}, [root / "classes.txt"], type(None), render)
        return root

    def _train(self) -> None:
        """The checkpoints, each from those before it."""
        recipe, root, out = self.recipe, self.root, self.out
        student, teacher = recipe.student, out / "teacher.pt"
        timed, precision = timing_target(recipe)  # what pruning is to be fast on
        self._checkpoint("teacher", [recipe.teacher], [], lambda run: run.train_teacher(recipe, root, out))
        self._checkpoint("student", [student], [], lambda run: run.train_student(recipe, root, out))
        self._checkpoint(
            "distilled",
            [student, recipe.distill],
            ["teacher"],
            lambda run: run.distill_student(recipe, teacher, root, out),
        )
        self._checkpoint(
            "pruned",
            [student, recipe.distill, recipe.prune, Targets((f"{timed.name}:{precision}",))],
            ["teacher", "distilled"],
            lambda run: run.prune_student(recipe, out / "distilled.pt", teacher, root, out),
        )
        if recipe.qat.epochs:
            self._checkpoint(
                "qat",
                [student, recipe.distill, recipe.qat, recipe.quantize],
                ["teacher", "pruned"],
                lambda run: run.qat_student(recipe, out / "pruned.pt", teacher, root, out),
            )
            onnx = out / f"{recipe.name}-qat.onnx"
            self.ledger.stage(
                "export qat",
                self.checkpoints["qat"],
                [onnx],
                str,
                lambda: str(_training().export_onnx(out / "qat.pt", onnx)),
            )

    def _checkpoint(self, name: str, sections: list[Any], parents: list[str], train: Callable[[Any], Path]) -> None:
        """OUT/NAME.pt by `train`, from these sections of the recipe and earlier checkpoints."""
        path = self.out / f"{name}.pt"
        inputs = [self.data["train"], self.data["val"], self.recipe.data.size, self.recipe.seed, *map(asdict, sections)]
        inputs += [self.checkpoints[parent] for parent in parents]
        starts = [self.recipe.resolve(part.init) for part in sections if isinstance(part, Role) and part.init]
        inputs += [sha256(require_file(start, "Checkpoint")) for start in starts]
        self.ledger.stage(
            name, inputs, [path], StageResult, lambda: StageResult.load(train(_training()).with_suffix(".json"))
        )
        self.checkpoints[name] = sha256(path)

    def _measure_stage(self, stage: str) -> MeasuredStage:
        """Export a stage's checkpoint, compile it in float32 for the first target, and measure that bundle."""
        onnx, bundle = self.out / "models" / f"{stage}.onnx", self.out / "models" / f"{stage}-fp32"
        profile = self.pairs[0][0]

        def work() -> MeasuredBundle:
            _training().export_onnx(self.out / f"{stage}.pt", onnx)
            frames = [self.test[i][0] for i in range(min(8, len(self.test)))]
            spec, _ = spec_of(onnx, {})
            compile_model(onnx, bundle, profile, "fp32", spec=spec, frames=frames, dataset=self.test, log=self.log)
            return measured(bundle, self.test)

        inputs = [self.checkpoints[stage], self.data["test"], profile.name]
        found = self.ledger.stage(f"measure {stage}", inputs, [onnx], MeasuredBundle, work)
        trained = StageResult.load(self.out / f"{stage}.json")
        figures = {key: getattr(trained, key) for key in ("macs", "params", "val_miou", "seconds")}
        return MeasuredStage(stage=stage, **figures, **vars(found))

    def _bundle(self, profile: target.Target, precision: Precision, calibration: CalibrationSet) -> MeasuredBundle:
        recipe = self.recipe
        path = self.out / "bundles" / bundle_name(recipe, profile, precision)
        by_qat = is_of_training(recipe, profile, precision)
        parent = self.out / (f"{recipe.name}-qat.onnx" if by_qat else f"{recipe.name}.onnx")
        chosen = calibration if precision.is_int8 and not by_qat else None

        def work() -> MeasuredBundle:
            spec, _ = spec_of(parent, {})
            compile_model(
                parent,
                path,
                profile,
                precision,
                spec=spec,
                frames=[self.test[i][0] for i in range(min(PARITY_FRAMES, len(self.test)))],
                calibration=chosen,
                ptq=recipe.quantize if chosen else PTQ(),
                choosing=held_out(chosen, spec) if chosen else (),  # never of the test split
                dataset=self.test,
                golden=golden_frames(recipe.targets.golden, spec, recipe.folder)
                or [read_image(frame) for frame in calibration.frames[:GOLDEN_FRAMES]],
                recipe=recipe.to_dict(),
                trained_on=self.root,
                log=self.log,
            )
            return measured(path, self.test)

        inputs = [sha256(parent), profile.name, precision, chosen.digest if chosen else "", self.data["test"]]
        inputs += [getattr(recipe.quantize, f.name) for f in fields(PTQ)] if chosen else []
        inputs.append(recipe.targets.golden)
        return self.ledger.stage(f"compile {path.name}", inputs, [path / MANIFEST], MeasuredBundle, work)


def _training() -> Any:
    """The training stages; imports torch, so only where a stage has work."""
    from edgeseg.training import stages

    return stages


def measured(path: Path, test: Dataset) -> MeasuredBundle:
    """Size, stored accuracy and speed of a bundle that was compiled with `test`."""
    bundle = Bundle.load(path)
    frames = [test[i][0] for i in range(min(8, len(test)))]
    speed = bench(path, frames, BENCH_SECONDS)
    metrics, parity = bundle.manifest.metrics, bundle.manifest.parity
    assert metrics is not None and parity is not None, "compile_model measures both"
    return MeasuredBundle(
        path=str(path),
        name=bundle.name,
        target=bundle.target,
        precision=bundle.precision.value,
        bytes=bundle.size,
        parity=parity,
        miou=metrics.miou,
        pixel_accuracy=metrics.pixel_accuracy,
        boundary_f1=metrics.boundary_f1,
        per_class=metrics.per_class,
        fps=speed.fps,
        latency_ms=speed.latency_ms,
        pure_fps=speed.pure_fps,
        stages_ms=speed.stages_ms,
    )


def note_bundles(result: PipelineResult, training: Path) -> None:
    """Add what was made of it to the MLflow run of a training: the recipe, each bundle's digest and mIoU."""
    with mlflow_run.continued(training, "track = 'mlflow'") as run:
        if run is None:
            return
        digests = {f"edgeseg.bundle.{made.name}": Bundle.load(Path(made.path)).digest for made in result.bundles}
        run.tag({"edgeseg.recipe": json.dumps(result.recipe), **digests})
        run.log({f"bundle/{made.name}/miou": made.miou for made in result.bundles if made.miou is not None}, step=0)


def publish(result: PipelineResult, out: Path, folder: Path) -> None:
    """Copy the float parent and the first target's bundles into a model folder and write its model card."""
    from edgeseg.report.model_card import model_card

    name = result.name
    shutil.copyfile(out / f"{name}.onnx", folder / f"{name}.onnx")
    for row in result.bundles:
        source = Path(row.path)
        if source.name == f"{name}-{row.precision}":
            shutil.rmtree(folder / source.name, ignore_errors=True)
            shutil.copytree(source, folder / source.name)
    write_bytes(folder / "card.md", model_card(Recipe.from_dict(result.recipe, folder), [result]).encode())


def _drops(bundles: Sequence[MeasuredBundle], allowed: float) -> tuple[Int8Drop, ...]:
    """Points of mIoU that each INT8 bundle lost against the float32 one of its target."""
    floats = {row.target: row.miou or 0.0 for row in bundles if row.precision == Precision.FP32}
    rows = [row for row in bundles if Precision(row.precision).is_int8 and row.target in floats]
    drops = [(row.name, 100 * (floats[row.target] - (row.miou or 0.0))) for row in rows]
    return tuple(Int8Drop(name, drop, allowed, drop <= allowed) for name, drop in drops)


def _pictures(bundle: Path, test: Dataset, out: Path) -> tuple[Picture, ...]:
    indices = [round(i * (len(test) - 1) / max(1, PICTURES - 1)) for i in range(min(PICTURES, len(test)))]
    with open_segmenter(bundle) as segmenter:
        made = strips(segmenter, test, indices)
    rows = []
    for index, picture in zip(indices, made):
        name = f"pictures/{test.images[index].stem}.jpg"
        write_image(out / name, picture)
        rows.append(Picture(f"{test.images[index].stem}: frame, truth, prediction, differences", name))
    return tuple(rows)
