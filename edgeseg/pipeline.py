"""pipeline: the stages of a recipe, one after another, each skipped while its inputs have not changed.

OUT/data/                 rendered frames, where the recipe asks for them
OUT/{teacher,student,distilled,pruned}.pt, and qat.pt where the recipe trains with INT8's rounding
OUT/models/ROLE.onnx and OUT/models/ROLE-fp32/: each of them compiled for the first target and measured
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
from typing import Any, TypeVar

from edgeseg import target
from edgeseg.bench.measure import bench
from edgeseg.bundle import MANIFEST, Bundle
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import compile_model, golden_frames, spec_of
from edgeseg.data.dataset import Dataset
from edgeseg.evaluation.pictures import strips
from edgeseg.files import require_file, sha256, write_bytes
from edgeseg.images import read_image, write_image
from edgeseg.ledger import Ledger
from edgeseg.machine import fingerprint
from edgeseg.precision import Precision
from edgeseg.profiling.measure import timing_target
from edgeseg.quantization.quantize import schemes_of_training
from edgeseg.recipe import PTQ, Recipe, Role, Targets
from edgeseg.records import convert
from edgeseg.results.common import Picture
from edgeseg.results.pipeline import Int8Drop, MeasuredBundle, MeasuredStage, PipelineData, PipelineResult
from edgeseg.results.stage import StageResult
from edgeseg.runtime import open_segmenter

ROLES = ("teacher", "student", "distilled", "pruned")
BENCH_SECONDS = 4.0
PICTURES = 4
Log = Callable[[str], None]
T = TypeVar("T")


def run(recipe: Recipe, out: Path, log: Log) -> PipelineResult:
    """Every stage of the recipe into `out`; the result, which is also written there as report.json."""
    pairs = [target.split(entry) for entry in recipe.targets.compile]
    ledger = Ledger(out, log)
    root = _data(recipe, out, ledger)
    test = Dataset.open(root, "test")
    made = {"data": {split: Dataset.open(root, split).digest() for split in ("train", "val", "test")}}
    _train(recipe, root, out, ledger, made)
    roles = [_measure_role(role, out, ledger, made, test, pairs[0][0], log) for role in ROLES]
    shutil.copyfile(out / "models" / "pruned.onnx", out / f"{recipe.name}.onnx")
    calibration = CalibrationSet.choose(root, recipe.quantize.frames, recipe.seed)
    bundles = [_bundle(recipe, t, p, out, ledger, made, test, calibration, log) for t, p in pairs]
    fastest = min((b for b in bundles if b.target == pairs[0][0].name), key=lambda b: b.latency_ms.p50)
    result = PipelineResult(
        name=recipe.name,
        best=fastest.name,
        miou=fastest.miou,
        pixel_accuracy=fastest.pixel_accuracy,
        latency_ms=fastest.latency_ms,
        fps=fastest.fps,
        recipe=recipe.to_dict(),
        machine=fingerprint(),
        data=PipelineData(len(test), made["data"]),
        calibration=vars(calibration.identity),
        stages=tuple(roles),
        bundles=tuple(bundles),
        int8=_drops(bundles, recipe.quantize.max_drop),
        seconds={name: row.get("seconds") for name, row in ledger.rows.items()},
        pictures=_pictures(Path(bundles[-1].path), test, out),
    )
    result.save(out / "report.json")
    return result


def bundle_name(recipe: Recipe, profile: target.Target, precision: Precision) -> str:
    """NAME-PRECISION for the recipe's first target, NAME-TARGET-PRECISION for the others."""
    first = recipe.targets.compile[0].split(":")[0]
    return f"{recipe.name}-{precision}" if profile.name == first else f"{recipe.name}-{profile.name}-{precision}"


def _data(recipe: Recipe, out: Path, ledger: Ledger) -> Path:
    if recipe.data.synthetic is None:
        return recipe.resolve(recipe.data.root)
    from edgeseg.synth.files import write_dataset

    root = out / "data"
    wanted = asdict(recipe.data.synthetic)
    height, width = recipe.data.size

    def render() -> None:
        shutil.rmtree(root, ignore_errors=True)
        write_dataset(root, **wanted, height=height, width=width)

    ledger.stage("render", {**wanted, "size": [height, width]}, [root / "classes.txt"], render)
    return root


def _train(recipe: Recipe, root: Path, out: Path, ledger: Ledger, made: dict[str, Any]) -> None:
    """The checkpoints; adds the digest of each to `made`."""

    def role(name: str, parts: list[Any], parents: list[str], work: Callable[[Path], Path]) -> None:
        path = out / f"{name}.pt"
        inputs = [made["data"]["train"], made["data"]["val"], recipe.data.size, recipe.seed, *map(asdict, parts)]
        inputs += [made[parent] for parent in parents]
        starts = [recipe.resolve(part.init) for part in parts if isinstance(part, Role) and part.init]
        inputs += [sha256(require_file(start, "Checkpoint")) for start in starts]
        ledger.stage(name, inputs, [path], lambda: json.loads(work(out).with_suffix(".json").read_text()))
        made[name] = sha256(path)

    def stages() -> Any:
        from edgeseg.training import stages  # imports torch: only where a stage has work

        return stages

    student, teacher = recipe.student, recipe.teacher
    timed, precision = timing_target(recipe)  # what pruning is to be fast on
    role("teacher", [teacher], [], lambda folder: stages().train_teacher(recipe, root, folder))
    role("student", [student], [], lambda folder: stages().train_student(recipe, root, folder))
    role(
        "distilled",
        [student, recipe.distill],
        ["teacher"],
        lambda folder: stages().distill_student(recipe, out / "teacher.pt", root, folder),
    )
    role(
        "pruned",
        [student, recipe.distill, recipe.prune, Targets((f"{timed.name}:{precision}",))],
        ["teacher", "distilled"],
        lambda folder: stages().prune_student(recipe, out / "distilled.pt", out / "teacher.pt", root, folder),
    )
    if recipe.qat.epochs:
        role(
            "qat",
            [student, recipe.distill, recipe.qat, recipe.quantize],
            ["teacher", "pruned"],
            lambda folder: stages().qat_student(recipe, out / "pruned.pt", out / "teacher.pt", root, folder),
        )
        onnx = out / f"{recipe.name}-qat.onnx"
        ledger.stage("export qat", made["qat"], [onnx], lambda: str(stages().export_onnx(out / "qat.pt", onnx)))


def _measure_role(
    role: str, out: Path, ledger: Ledger, made: dict[str, Any], test: Dataset, profile: target.Target, log: Log
) -> MeasuredStage:
    """Export one checkpoint, compile it in float32 for the first target, and measure it on the path that ships."""
    onnx, bundle = out / "models" / f"{role}.onnx", out / "models" / f"{role}-fp32"

    def work() -> dict[str, Any]:
        from edgeseg.training import stages

        stages.export_onnx(out / f"{role}.pt", onnx)
        frames = [test[i][0] for i in range(min(8, len(test)))]
        spec, _ = spec_of(onnx, {})
        compile_model(onnx, bundle, profile, "fp32", spec=spec, frames=frames, dataset=test, log=log)
        return asdict(measured(bundle, test))

    found = ledger.stage(f"measure {role}", [made[role], made["data"]["test"], profile.name], [onnx], work)
    trained = StageResult.load(out / f"{role}.json")
    training = {key: getattr(trained, key) for key in ("macs", "params", "val_miou", "seconds")}
    return _recalled(MeasuredStage, {"stage": role, **training, **found}, ledger)


def _bundle(
    recipe: Recipe,
    profile: target.Target,
    precision: Precision,
    out: Path,
    ledger: Ledger,
    made: dict[str, Any],
    test: Dataset,
    calibration: CalibrationSet,
    log: Log,
) -> MeasuredBundle:
    path = out / "bundles" / bundle_name(recipe, profile, precision)
    int8 = precision.is_int8
    rounded = bool(recipe.qat.epochs) and int8 and profile.quantizer in schemes_of_training(recipe.qat.symmetric)
    parent = out / (f"{recipe.name}-qat.onnx" if rounded else f"{recipe.name}.onnx")
    chosen = calibration if int8 and not rounded else None

    def work() -> dict[str, Any]:
        spec, _ = spec_of(parent, {})
        frames = [read_image(frame) for frame in calibration.frames[:12]]
        compile_model(
            parent,
            path,
            profile,
            precision,
            spec=spec,
            frames=frames,
            calibration=chosen,
            ptq=recipe.quantize if chosen else PTQ(),
            dataset=test,
            golden=golden_frames(recipe.targets.golden, spec, recipe.folder),
            recipe=recipe.to_dict(),
            log=log,
        )
        return asdict(measured(path, test))

    inputs = [sha256(parent), profile.name, precision, chosen.digest if chosen else "", made["data"]["test"]]
    inputs += [getattr(recipe.quantize, f.name) for f in fields(PTQ)] if chosen else []
    inputs.append(recipe.targets.golden)
    return _recalled(MeasuredBundle, ledger.stage(f"compile {path.name}", inputs, [path / MANIFEST], work), ledger)


def _recalled(kind: type[T], values: object, ledger: Ledger) -> T:
    return convert(values, kind, f"{ledger.path} is of another version", "Remove it and run again.")


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
    write_bytes(folder / "card.md", model_card(result.recipe, [result]).encode())


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
