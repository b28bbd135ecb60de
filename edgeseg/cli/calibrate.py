"""calibrate: choose the frames that INT8 takes its ranges from, and write down which."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from edgeseg.cli import options
from edgeseg.cli.common import console, emit, percent, table
from edgeseg.cli.models import open_model
from edgeseg.errors import OptionError

app = typer.Typer()


@app.command()
def calibrate(
    source: Annotated[Path, typer.Argument(help="A folder of images, or a dataset (its train split).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The manifest to write (.json).")],
    frames: Annotated[int, typer.Option(help="How many frames.", min=8)] = 64,
    seed: Annotated[int, typer.Option(help="Which frame is taken first.", min=0)] = 0,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Frames to judge on, a folder or a dataset (val and test); repeatable. [default: SOURCE's]"),
    ] = None,
    skip_leaks: Annotated[bool, typer.Option("--skip-leaks", help="Leave out frames that are judged on.")] = False,
    model: Annotated[
        Path | None, typer.Option(help="Choose by the answers of this ONNX model or checkpoint, too.")
    ] = None,
    resamples: Annotated[
        int, typer.Option(help="Make INT8 of --model from so many other choices and tell how far they differ.", min=0)
    ] = 0,
    target: options.Target = "openvino-cpu",
    data: Annotated[Path | None, typer.Option(help="Labeled frames to judge the resamples on.")] = None,
    split: Annotated[str, typer.Option(help="Split of --data. Not the one you will report on.")] = "val",
    pictures: Annotated[Path | None, typer.Option(help="Draw the chosen frames on one sheet (.jpg, .png).")] = None,
    spec_file: options.SpecFile = None,
    output: options.Output = "",
    json_to: options.Json = None,
) -> None:
    """Choose calibration frames that cover all of SOURCE, for compile --calibration; refuse any that are judged on."""
    from edgeseg.calibration import coverage
    from edgeseg.calibration.selection import select
    from edgeseg.data.dataset import Dataset
    from edgeseg.images import write_image
    from edgeseg.target import Target

    if resamples and not model:
        raise OptionError("--resamples makes INT8 of a model, and none is given.", "Name it: --model FILE.onnx")
    if data and not resamples:
        raise OptionError("--data is what resamples are judged on.", "Say how many: --resamples 5")
    profile = Target.load(target)
    profile.require("int8")
    loaded = (*open_model(model, spec_file, output), output) if model else None
    judged = Dataset.open(data, split) if data else None
    with console.status("calibrate") as status:

        def log(text: str) -> None:
            status.update(escape(text))

        chosen = select(
            source, frames, seed, against=against or (), judged=judged, skip_leaks=skip_leaks, model=loaded, log=log
        )
        about = dict(chosen.about)
        if loaded and resamples:
            from edgeseg.search.resample import resample

            work = out.with_name(f"{out.stem}.resamples")
            about["resamples"] = resample(chosen, loaded, profile, resamples, work, judged, log)
    calibration = chosen.calibration
    calibration.save(out, about)
    if pictures:
        write_image(pictures, coverage.sheet(calibration.frames))
    for note in chosen.notes:
        console.print(f"[yellow]note[/]: {escape(note)}", highlight=False)
    _show(about)
    count, of = len(calibration.frames), about["chosen"]["of_frames"]
    told = f"{count} of {of} frames of {source}, digest {calibration.digest[:16]}, written to {out}"
    console.print(told, highlight=False, markup=False)
    emit({"kind": "calibration", "manifest": str(out), **vars(calibration.identity), **about}, json_to)


def _show(about: dict[str, Any]) -> None:
    found = about["coverage"]
    if classes := found.get("classes"):
        shown = table("Classes", "class", "% of the pixels", "of all frames'", "in frames", "of")
        for name, row in classes.items():
            shares = (percent(row[key]) for key in ("share", "share_of_all"))
            shown.add_row(escape(name), *shares, str(row["frames"]), str(row["frames_of_all"]))
        console.print(shown)
    (low, high), (least, most) = found["brightness"], found["brightness_of_all"]
    lines = [
        f"brightness {low:g} to {high:g}, all frames {least:g} to {most:g}",
        f"farthest frame from a chosen one: {found['radius']:g}; from as many by chance: {found['radius_random']:g}",
    ]
    for row in about["checked_against"]:
        lines.append(
            f"apart from the {row['frames']} frames of {row['name']}: at least {row['nearest']} of 512 signs differ"
        )
    if done := about.get("resamples"):
        key = done["measure"]
        name = {"miou": "mIoU", "agreement": "agreement with float"}[key]
        spread = "" if done["deviation"] is None else f" +- {100 * done['deviation']:.2f}"
        lines.append(
            f"{name} on {done['on']}, {len(done['rows'])} resamples: {100 * done['mean']:.2f}{spread} "
            f"({percent(done['lowest'])} to {percent(done['highest'])}), {done['reference']['precision']} "
            f"{percent(done['reference'][key])}"
        )
    for line in lines:
        console.print(line, highlight=False, markup=False)
