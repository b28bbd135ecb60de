"""calibrate: choose the frames that INT8 is calibrated with, and list them in a manifest."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import emit, percent, results, status, table, wrote
from edgeseg.cli.models import open_model
from edgeseg.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from edgeseg.results.calibration import ClassCoverage, Resamples, SelectionReport

app = typer.Typer()
log = logging.getLogger(__name__)


@app.command(
    rich_help_panel=options.COMPRESS,
    epilog="Example: edgeseg calibrate dataset/ --frames 64 --out calibration.json",
)
def calibrate(
    source: Annotated[
        Path, typer.Argument(help="A folder of images, or a dataset (its train split).", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Manifest to write (.json).", show_default=False)],
    frames: Annotated[int, typer.Option(help="How many frames to choose.", min=8)] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the first frame; the others follow from it.", min=0)] = 0,
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="Evaluation frames that must not be chosen: a folder, or a dataset (its val and test splits). "
            "Repeatable; the val and test splits of SOURCE are always checked."
        ),
    ] = None,
    skip_leaks: Annotated[
        bool, typer.Option("--skip-leaks", help="Leave out frames that are also evaluation frames.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(help="ONNX model or checkpoint: also compare frames by its predictions.")
    ] = None,
    resamples: Annotated[
        int, typer.Option(help="Also quantize --model with this many resamples and compare their accuracy.", min=0)
    ] = 0,
    target: options.Target = "openvino-cpu",
    data: Annotated[Path | None, typer.Option(help="Labeled dataset to evaluate the resamples on.")] = None,
    split: options.SearchSplit = "val",
    pictures: Annotated[
        Path | None, typer.Option(help="Write a contact sheet of the chosen frames (.jpg, .png).")
    ] = None,
    spec_file: options.SpecFile = None,
    output: options.Output = "",
    json_to: options.Json = None,
) -> None:
    """Choose calibration frames for INT8 that cover all frames of SOURCE, and none that you evaluate on.

    For model owners, before compile --calibration. Writes a manifest that names each frame with its digest, so that a
    bundle can be compiled again from the same frames. Exits 2 if SOURCE holds evaluation frames, unless --skip-leaks.
    """
    from edgeseg.calibration.contact_sheet import contact_sheet
    from edgeseg.calibration.selection import select
    from edgeseg.data.dataset import Dataset
    from edgeseg.images import write_image
    from edgeseg.results.calibration import CalibrationResult
    from edgeseg.target import Target

    if resamples and not model:
        raise OptionError("--resamples needs a model to quantize, and none is given.", "Name it: --model FILE.onnx")
    if data and not resamples:
        raise OptionError("--data is only for evaluating resamples.", "Say how many: --resamples 5")
    profile = Target.load(target)
    profile.require("int8")
    loaded = (*open_model(model, spec_file, output), output) if model else None
    dataset = Dataset.open(data, split) if data else None
    with status("calibrate") as update:
        selection = select(
            source, frames, seed,
            against=against or (), evaluation_data=dataset, skip_leaks=skip_leaks, model=loaded, log=update,
        )  # fmt: skip
        report = selection.report
        if loaded and resamples:
            from edgeseg.search.resample import resample

            folder = out.with_name(f"{out.stem}.resamples")
            report = dataclasses.replace(
                report, resamples=resample(selection, loaded, profile, resamples, folder, dataset, update)
            )
    for note in selection.notes:
        log.warning("%s", note)
    calibration = selection.calibration
    calibration.save(out, report)
    shown_on = results(json_to)
    if report.coverage.classes:
        shown_on.print(_class_table(report.coverage.classes))
    for line in _lines(report):
        shown_on.print(line)
    total, digest = report.chosen.of_frames, calibration.digest
    shown_on.print(f"{len(calibration.frames)} of {total} frames of {source}, digest {digest[:16]}")
    identity = vars(calibration.identity)
    emit(CalibrationResult(**vars(report), **identity, manifest=str(out)), json_to)
    if pictures:
        write_image(pictures, contact_sheet(calibration.frames))
        wrote(pictures)
    wrote(out)


def _class_table(classes: dict[str, ClassCoverage]) -> Table:
    shown = table("Classes", "class", "% of pixels", "% in all frames", "frames", "of all")
    for name, row in classes.items():
        shown.add_row(name, percent(row.share), percent(row.share_of_all), str(row.frames), str(row.frames_of_all))
    return shown


def _lines(report: SelectionReport) -> Iterator[str]:
    """The report in words."""
    coverage = report.coverage
    (low, high), (lowest, highest) = coverage.brightness, coverage.brightness_of_all
    yield f"brightness {low:g} to {high:g}, all frames {lowest:g} to {highest:g}"
    yield f"largest distance to a chosen frame: {coverage.radius:g}, with a random choice: {coverage.radius_random:g}"
    for row in report.checked_against:
        if row.nearest is not None:
            frames = f"{row.frames} frames of {row.name}"
            yield f"checked against {frames}: perceptual hashes differ in at least {row.nearest} of 512 bits"
    if report.resamples:
        yield _resample_line(report.resamples)


def _resample_line(resamples: Resamples) -> str:
    by_miou = resamples.measure == "miou"
    name = "mIoU" if by_miou else "agreement with float"
    deviation = "" if resamples.deviation is None else f" +- {100 * resamples.deviation:.2f}"
    reference = resamples.reference
    return (
        f"{name} on {resamples.on}, {len(resamples.rows)} resamples: {100 * resamples.mean:.2f}{deviation} "
        f"({percent(resamples.lowest)} to {percent(resamples.highest)}), {reference.precision} "
        f"{percent(reference.miou if by_miou else reference.agreement)}"
    )
