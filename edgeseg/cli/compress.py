"""sensitivity, control, autotune: INT8 that keeps its accuracy, within a budget."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from edgeseg.cli.common import JSON_OPTION, console, emit, percent, size, table
from edgeseg.files import write_bytes

app = typer.Typer()

ModelArg = Annotated[Path, typer.Argument(help="An ONNX segmentation model, or a checkpoint (.pt) of edgeseg.")]
TargetOpt = Annotated[str, typer.Option("--target", "-t", help="Device profile; see edgeseg targets.")]
CalibrationOpt = Annotated[Path, typer.Option(help="A folder of images, a dataset, or a manifest.")]
FramesOpt = Annotated[int, typer.Option("--calibration-frames", help="How many of them to use.", min=8)]
DataOpt = Annotated[Path, typer.Option(help="Labeled frames to judge on; none of the calibration frames.")]
SplitOpt = Annotated[str, typer.Option(help="Split of --data. Not the one you will report on.")]
DropOpt = Annotated[float, typer.Option(help="Points of mIoU that may be lost against float.", min=0)]
SureOpt = Annotated[bool, typer.Option("--sure", help="Hold --max-drop with the drop's whole 95 % interval.")]
Int8Opt = Annotated[str, typer.Option("--precision", "-p", help="int8, or int8-bf16: the layers in float as bf16.")]
MinutesOpt = Annotated[float, typer.Option(help="Stop before a step that would take longer; 0 = no limit.", min=0)]
MemoryOpt = Annotated[float, typer.Option(help="Stop once this process took so many MB; 0 = no limit.", min=0)]
SpecOpt = Annotated[Path | None, typer.Option("--spec", help="Spec as TOML: height, width, classes, mean, std, ...")]
SecondsOpt = Annotated[float, typer.Option(help="To measure the speed of each bundle.", min=0.1)]
OutputOpt = Annotated[str, typer.Option(help="Which output of the model, if it has several.")]


@app.command()
def sensitivity(
    model: ModelArg,
    calibration: CalibrationOpt,
    target: TargetOpt = "openvino-cpu",
    spec_file: SpecOpt = None,
    output: OutputOpt = "",
    json_to: Annotated[str | None, JSON_OPTION] = None,
) -> None:
    """Rank the layers by the noise that INT8 of each adds at the logits, the noisiest first."""
    import tempfile

    from edgeseg.quantization.sensitivity import FRAMES, rank
    from edgeseg.target import Target

    profile = Target.load(target)
    profile.require("int8")
    source, spec = opened(model, spec_file, output)
    chosen = _calibration(calibration, FRAMES)
    with console.status("deploy graph") as status, tempfile.TemporaryDirectory() as folder:
        from edgeseg import onnx_graph

        path = Path(folder) / "deploy.onnx"
        path.write_bytes(onnx_graph.deploy_graph(onnx_graph.load(source), spec, output).model.SerializeToString())

        def each(index: int, count: int, measure: Any) -> float:
            status.update(f"layer {index + 1} of {count}")
            return float(measure())

        rows = rank(path, list(chosen.images(spec)), profile.quantizer, each)
    shown = table(f"Noise of INT8 at the logits, {profile.quantizer}", "layer", "operator", "SQNR dB")
    for row in rows:
        shown.add_row(escape(row.layer), row.operator, f"{row.sqnr_db:.1f}")
    console.print(shown)
    about = {"model": model.name, "target": target, "calibration": chosen.summary()}
    emit({"kind": "sensitivity", **about, "layers": [row.to_dict() for row in rows]}, json_to)


@app.command()
def control(
    model: ModelArg,
    calibration: CalibrationOpt,
    data: DataOpt,
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle to write; OUT.trials: report and measurements.")],
    target: TargetOpt = "openvino-cpu",
    precision: Int8Opt = "int8",
    split: SplitOpt = "val",
    max_drop: DropOpt = 0.5,
    sure: SureOpt = False,
    calibration_frames: FramesOpt = 64,
    max_minutes: MinutesOpt = 0,
    max_memory: MemoryOpt = 0,
    seconds: SecondsOpt = 2.0,
    spec_file: SpecOpt = None,
    output: OutputOpt = "",
    json_to: Annotated[str | None, JSON_OPTION] = None,
) -> None:
    """INT8, found in the way and with the layers in float that keep the accuracy. Exit 1 when none does: the best is
    written."""
    from edgeseg.report.search_results import told
    from edgeseg.search.control import control as run

    source, spec = opened(model, spec_file, output)
    with console.status("accuracy control") as status:
        trials = _trials(
            out.with_name(f"{out.name}.trials"), target, calibration, calibration_frames, data, split,
            max_minutes, max_memory, seconds, output, status,
        )  # fmt: skip
        found = run(trials, source, spec, max_drop, out, sure, trials.target.require(precision))
    _report(trials.folder, found)
    shown = table(f"{escape(str(out))}: layers in float", "k", "way", "mIoU", "points lost (95 %)", "p50 ms", "MB")
    for row in found["rows"]:
        mark = "[green]*[/]" if row["name"] == found["chosen"] else ""
        shown.add_row(
            f"{row['k']}{mark}", row["way"], percent(row["miou"]), told(row["drop"]), f"{row['latency_ms']['p50']:.2f}",
            f"{row['bytes'] / 1e6:.2f}",
        )  # fmt: skip
    console.print(shown)
    for name in found["kept"]:
        noise = {row["layer"]: row["sqnr_db"] for row in found["noise"]}
        console.print(f"in float: {name} ({noise[name]:.1f} dB)", highlight=False, markup=False)
    emit(found, json_to)
    _finish(found, f"{found['drop']['value'] + 0.0:.2f} points lost, {max_drop:g} allowed", out)


@app.command()
def autotune(
    models: Annotated[list[Path], typer.Argument(help="Models of one task: one, or one for each pruning level.")],
    calibration: CalibrationOpt,
    data: DataOpt,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the best bundle, the report and the trials.")],
    target: TargetOpt = "openvino-cpu",
    split: SplitOpt = "val",
    max_drop: DropOpt = 0.5,
    sure: SureOpt = False,
    p99: Annotated[float | None, typer.Option(help="Largest p99 of one frame, milliseconds.", min=0)] = None,
    sizes: Annotated[list[str] | None, typer.Option("--size", help="Input WIDTHxHEIGHT to try; repeatable.")] = None,
    calibration_frames: FramesOpt = 64,
    max_minutes: MinutesOpt = 0,
    max_memory: MemoryOpt = 0,
    seconds: SecondsOpt = 4.0,
    spec_file: SpecOpt = None,
    output: OutputOpt = "",
    json_to: Annotated[str | None, JSON_OPTION] = None,
) -> None:
    """Measure precisions, mixed sets, sizes and models; pick the fastest within the limits. Exit 1 when none is."""
    from edgeseg.report.search_results import told
    from edgeseg.search import autotune as tuner

    asked = sorted({size(text) for text in sizes or ()}, key=math.prod, reverse=True)
    pairs = [pair for model in models for pair in _sized(model, asked, spec_file, output, out / "models")]
    with console.status("autotune") as status:
        trials = _trials(
            out / "trials", target, calibration, calibration_frames, data, split,
            max_minutes, max_memory, seconds, output, status,
        )  # fmt: skip
        found = tuner.autotune(trials, pairs, max_drop, p99, out / "best", sure)
    _report(out, found)
    shown = table(escape(str(out)), "candidate", "mIoU", "points lost (95 %)", "p50 ms", "p99 ms", "")
    for row in found["rows"]:
        speed = [f"{row['latency_ms'][k]:.2f}" for k in ("p50", "p99")]
        mark = "picked" if row["name"] == found["chosen"] else "front" if row["name"] in found["front"] else ""
        shown.add_row(escape(row["name"]), percent(row["miou"]), told(row["drop"]), *speed, mark)
    console.print(shown)
    for line in found["why"]:
        console.print(line, highlight=False, markup=False)
    emit(found, json_to)
    _finish(found, "no candidate holds the limits", out / "best")


def _finish(found: dict[str, Any], missed: str, out: Path) -> None:
    if found["stopped"]:
        console.print(f"[yellow]stopped early[/]: {found['stopped']}; the same command continues", highlight=False)
    if not found["held"]:
        console.print(
            f"[bold red]not reached[/]: {missed}; the best was written to {escape(str(out))}", highlight=False
        )
        raise typer.Exit(1)
    console.print(f"[green]ok[/] {escape(str(out))}", highlight=False)


def _report(folder: Path, found: dict[str, Any]) -> None:
    """report.json, and it drawn as report.html and report.md."""
    from edgeseg.report import page

    source = folder / "report.json"
    write_bytes(source, json.dumps(found, indent=1).encode())
    for kind in ("html", "md"):
        page.write([(source, found)], folder / f"report.{kind}")


def _sized(
    model: Path, sizes: list[tuple[int, int]], spec_file: Path | None, output: str, folder: Path
) -> list[tuple[Path, Any]]:
    """(ONNX, Spec) of a model for each size; a checkpoint is exported into `folder` for each."""
    from edgeseg.cli.compile import as_onnx, is_checkpoint
    from edgeseg.search.autotune import sized

    if not is_checkpoint(model):
        return sized(*opened(model, spec_file, output), sizes)
    exports = [as_onnx(model, folder / f"{w}x{h}", (h, w)) for h, w in sizes] or [as_onnx(model, folder)]
    return [opened(path, spec_file, output) for path in exports]


def _trials(
    folder: Path, target: str, calibration: Path, frames: int, data: Path, split: str,
    minutes: float, megabytes: float, seconds: float, output: str, status: Any,
) -> Any:  # fmt: skip
    from edgeseg.data.dataset import Dataset
    from edgeseg.search.trials import Budget, Trials
    from edgeseg.target import Target

    profile = Target.load(target)
    profile.require("int8")
    budget = Budget(minutes, megabytes)
    chosen, dataset = _calibration(calibration, frames), Dataset.open(data, split)
    if split == "test":
        console.print("[yellow]note[/]: what is chosen on the test split should not be reported on it")
    return Trials(folder, profile, chosen, dataset, budget, lambda text: status.update(escape(text)), seconds, output)


def _calibration(source: Path, count: int) -> Any:
    from edgeseg.calibration.frames import Calibration

    return Calibration.choose(source, count)


def opened(model: Path, spec_file: Path | None, output: str) -> tuple[Path, Any]:
    """(ONNX file, Spec); what had to be assumed is said."""
    from edgeseg.cli.compile import as_onnx, spec_table
    from edgeseg.compile import spec_of

    source = as_onnx(model)
    spec, assumed = spec_of(source, spec_table(spec_file), output)
    for line in assumed:
        console.print(f"[yellow]assumed[/] {line}", highlight=False)
    return source, spec
