"""sensitivity, control, autotune: INT8 that keeps its accuracy, within a budget."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import emit, percent, results, resumable, size, status, table, wrote
from edgeseg.cli.models import as_onnx, is_checkpoint, is_folder, open_model

if TYPE_CHECKING:
    from edgeseg.results.search import AutotuneResult, ControlResult
    from edgeseg.search.trials import Trials
    from edgeseg.spec import Spec

app = typer.Typer()
log = logging.getLogger(__name__)

MaxDrop = Annotated[float, typer.Option(help="Points of mIoU that may be lost against the float model.", min=0)]
Sure = Annotated[bool, typer.Option("--sure", help="Hold --max-drop with the whole 95 % interval of the drop.")]
Int8Precision = Annotated[
    str, typer.Option("--precision", "-p", help="int8, or int8-bf16: excluded layers in bfloat16.")
]
MaxMinutes = Annotated[float, typer.Option(help="Stop before a step that would take longer; 0 = no limit.", min=0)]
MaxMemory = Annotated[float, typer.Option(help="Stop when this process has used this many MB; 0 = no limit.", min=0)]
Seconds = Annotated[float, typer.Option(help="Seconds for measuring the speed of each bundle.", min=0.1)]


@app.command(
    rich_help_panel=options.COMPRESS,
    epilog="Example: edgeseg sensitivity model.onnx --calibration frames/",
)
def sensitivity(
    model: options.Model,
    calibration: options.Calibration,
    target: options.Target = "openvino-cpu",
    spec_file: options.SpecFile = None,
    output: options.Output = "",
    json_to: options.Json = None,
) -> None:
    """Rank layers by the noise that quantizing each alone adds to the logits, the noisiest first.

    For model owners whose INT8 loses accuracy: the first layers of the list are those to --exclude.
    """
    import tempfile

    from edgeseg import onnx_graph
    from edgeseg.calibration.frames import CalibrationSet
    from edgeseg.quantization.sensitivity import FRAMES, rank
    from edgeseg.results.search import SensitivityResult
    from edgeseg.target import Target

    profile = Target.load(target)
    profile.require("int8")
    source, spec = open_model(model, spec_file, output)
    chosen = CalibrationSet.choose(calibration, FRAMES)
    with status("measuring layers") as update, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deploy.onnx"
        path.write_bytes(onnx_graph.deploy_graph(onnx_graph.load(source), spec, output).model.SerializeToString())

        def measure(index: int, count: int, sqnr: Callable[[], float]) -> float:
            update(f"layer {index + 1} of {count}")
            return sqnr()

        rows = rank(path, list(chosen.images(spec)), profile.quantizer, measure)
    shown = table(f"Noise of INT8 at the logits, {profile.quantizer}", "layer", "operator", "SQNR dB")
    for row in rows:
        shown.add_row(row.layer, row.operator, f"{row.sqnr_db:.1f}")
    results(json_to).print(shown)
    emit(
        SensitivityResult(model=model.name, target=target, calibration=vars(chosen.identity), layers=tuple(rows)),
        json_to,
    )


@app.command(
    rich_help_panel=options.COMPRESS,
    epilog="Example: edgeseg control model.onnx --calibration frames/ --data dataset/ --max-drop 0.5 --out model-int8",
)
def control(
    model: options.Model,
    calibration: options.Calibration,
    data: options.Data,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Bundle to write; the report and all measurements go to OUT.trials.")
    ],
    target: options.Target = "openvino-cpu",
    precision: Int8Precision = "int8",
    split: options.SearchSplit = "val",
    max_drop: MaxDrop = 0.5,
    sure: Sure = False,
    calibration_frames: options.CalibrationFrames = 64,
    max_minutes: MaxMinutes = 0,
    max_memory: MaxMemory = 0,
    seconds: Seconds = 2.0,
    spec_file: options.SpecFile = None,
    output: options.Output = "",
    json_to: options.Json = None,
) -> None:
    """Find an INT8 bundle that loses at most --max-drop points, with as few excluded layers as possible.

    For model owners. Tries other ranges, equalized channels and uncorrected biases first, then excludes the noisiest
    layers. Exits 1 if no bundle holds the limit; the best is still written. An interrupted run continues.
    """
    from edgeseg.search.control import control as search

    source, spec = open_model(model, spec_file, output)
    with resumable(), status("accuracy control") as update:
        trials = _trials(
            out.with_name(f"{out.name}.trials"), target, calibration, calibration_frames, data, split,
            max_minutes, max_memory, seconds, output, update,
        )  # fmt: skip
        result = search(trials, source, spec, max_drop, out, sure, trials.target.require(precision))
    _write_report(trials.folder, result)
    columns = ("excluded layers", "variant", "mIoU", "points lost (95 %)", "p50 ms", "MB")
    shown = table(str(out), *columns)
    for row in result.rows:
        mark = "*" if row.name == result.chosen else ""
        size_mb = f"{row.bytes / 1e6:.2f}"
        shown.add_row(
            f"{row.k}{mark}", row.variant, percent(row.miou), str(row.drop), f"{row.latency_ms.p50:.2f}", size_mb
        )
    shown_on = results(json_to)
    shown_on.print(shown)
    noise = {row.layer: row.sqnr_db for row in result.noise}
    for name in result.kept:
        shown_on.print(f"excluded: {name} ({noise[name]:.1f} dB)")
    emit(result, json_to)
    _finish(result, f"{result.drop.value or 0.0:.2f} points lost, {max_drop:g} allowed", out)


@app.command(
    rich_help_panel=options.COMPRESS,
    epilog="Example: edgeseg autotune model.onnx --calibration frames/ --data dataset/ --p99 20 --out tuned",
)
def autotune(
    models: Annotated[
        list[Path],
        typer.Argument(help="Models of one task, for instance one for each pruning level.", show_default=False),
    ],
    calibration: options.Calibration,
    data: options.Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the best bundle, the report and all trials.")],
    target: options.Target = "openvino-cpu",
    split: options.SearchSplit = "val",
    max_drop: MaxDrop = 0.5,
    sure: Sure = False,
    p99: Annotated[float | None, typer.Option(help="Largest p99 latency of one frame, in milliseconds.", min=0)] = None,
    sizes: Annotated[
        list[str] | None, typer.Option("--size", metavar="WxH", help="Input size to try; repeatable.")
    ] = None,
    calibration_frames: options.CalibrationFrames = 64,
    max_minutes: MaxMinutes = 0,
    max_memory: MaxMemory = 0,
    seconds: Seconds = 4.0,
    spec_file: options.SpecFile = None,
    output: options.Output = "",
    json_to: options.Json = None,
) -> None:
    """Measure precisions, excluded layers, input sizes and models; choose the fastest within the limits.

    For whoever needs the best bundle for one device. Exits 1 if no candidate holds the limits; the best is
    still written. An interrupted run continues.
    """
    from edgeseg.search import autotune as search

    shapes = sorted({size(text) for text in sizes or ()}, key=math.prod, reverse=True)
    pairs = [pair for model in models for pair in _at_sizes(model, shapes, spec_file, output, out / "models")]
    with resumable(), status("autotune") as update:
        trials = _trials(
            out / "trials", target, calibration, calibration_frames, data, split,
            max_minutes, max_memory, seconds, output, update,
        )  # fmt: skip
        result = search.autotune(trials, pairs, max_drop, p99, out / "best", sure)
    _write_report(out, result)
    shown = table(str(out), "candidate", "mIoU", "points lost (95 %)", "p50 ms", "p99 ms", "")
    for row in result.rows:
        mark = "chosen" if row.name == result.chosen else "front" if row.name in result.front else ""
        speed = (f"{row.latency_ms.p50:.2f}", f"{row.latency_ms.p99:.2f}")
        shown.add_row(row.name, percent(row.miou), str(row.drop), *speed, mark)
    shown_on = results(json_to)
    shown_on.print(shown)
    for line in result.why:
        shown_on.print(line)
    emit(result, json_to)
    _finish(result, "no candidate holds the limits", out / "best")


def _finish(result: ControlResult | AutotuneResult, missed: str, out: Path) -> None:
    if result.stopped:
        log.warning("stopped early: %s; run the same command again to continue", result.stopped)
    wrote(out)
    if not result.held:
        log.error("limit missed: %s; the best bundle was written", missed)
        raise typer.Exit(1)


def _write_report(folder: Path, result: ControlResult | AutotuneResult) -> None:
    """report.json, and its drawings report.html and report.md."""
    from edgeseg.report import page

    source = folder / "report.json"
    result.save(source)
    for kind in ("html", "md"):
        page.write([(source, result)], folder / f"report.{kind}")
    wrote(folder / "report.html")


def _at_sizes(
    model: Path, shapes: list[tuple[int, int]], spec_file: Path | None, output: str, folder: Path
) -> list[tuple[Path, Spec]]:
    """(ONNX file, Spec) of a model for each (height, width); a checkpoint or a Hugging Face folder is exported into
    `folder` for each."""
    from edgeseg.search.autotune import sized

    if not (is_checkpoint(model) or is_folder(model)):
        return sized(*open_model(model, spec_file, output), shapes)
    exports = [as_onnx(model, folder / f"{w}x{h}", (h, w)) for h, w in shapes] or [as_onnx(model, folder)]
    return [open_model(path, spec_file, output) for path in exports]


def _trials(
    folder: Path, target: str, calibration: Path, frames: int, data: Path, split: str,
    minutes: float, megabytes: float, seconds: float, output: str, update: Callable[[str], None],
) -> Trials:  # fmt: skip
    from edgeseg.calibration.frames import CalibrationSet
    from edgeseg.data.dataset import Dataset
    from edgeseg.search.trials import Budget, Trials
    from edgeseg.target import Target

    profile = Target.load(target)
    profile.require("int8")
    chosen, dataset = CalibrationSet.choose(calibration, frames), Dataset.open(data, split)
    if split == "test":
        log.warning("a bundle chosen on the test split should not be reported on it")
    return Trials(folder, profile, chosen, dataset, Budget(minutes, megabytes), update, seconds, output)
