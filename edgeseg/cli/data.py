"""synth: rendered street scenes, as a dataset and as a video. data import: labels of other tools."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import emit, progress, results, size, wrote

app = typer.Typer()
datasets = typer.Typer(no_args_is_help=True)
app.add_typer(datasets, name="data", rich_help_panel=options.DATA, help="Datasets: import the labels of other tools.")
log = logging.getLogger(__name__)


@app.command(
    rich_help_panel=options.DATA,
    epilog="Example: edgeseg synth data --train 240 --val 40 --test 60 --clip street.mp4",
)
def synth(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Dataset to write; must not exist.", show_default=False)
    ],
    train: Annotated[int, typer.Option(help="Frames of the train split.")] = 240,
    val: Annotated[int, typer.Option(help="Frames of the val split.")] = 40,
    test: Annotated[int, typer.Option(help="Frames of the test split.")] = 60,
    seed: Annotated[int, typer.Option(help="Seed of the scenes: the same one gives the same frames.")] = 1,
    frame_size: Annotated[str, typer.Option("--size", metavar="WxH", help="Size of the frames.")] = "384x224",
    night: Annotated[float, typer.Option(help="Darkness: 0 is day, 1 is night.")] = 0.0,
    fog: Annotated[float, typer.Option(help="Fog: 0 is none, 1 leaves about 60 m of sight.")] = 0.0,
    clip: Annotated[Path | None, typer.Option(help="Also render a video (MP4) of another street.")] = None,
    frames: Annotated[int, typer.Option(help="Frames of the video, 25 per second.")] = 250,
    clip_size: Annotated[str, typer.Option(metavar="WxH", help="Size of the video.")] = "1280x720",
) -> None:
    """Render a labeled dataset of street scenes, without a download.

    For trying edgeseg out, and for tests: the labels are exact.
    """
    from edgeseg.synth.files import check_clip, write_clip, write_dataset

    height, width = size(frame_size)
    clip_height, clip_width = size(clip_size)
    if clip:  # before the long job, not after it
        check_clip(clip, frames, clip_height, clip_width, night, fog)
    with progress("frames") as update:
        write_dataset(
            folder,
            train=train,
            val=val,
            test=test,
            seed=seed,
            height=height,
            width=width,
            night=night,
            fog=fog,
            progress=update,
        )
    wrote(folder)
    if clip:
        with progress("video") as update:
            write_clip(clip, frames=frames, height=clip_height, width=clip_width, night=night, fog=fog, progress=update)
        wrote(clip)


@datasets.command("import", epilog="Example: edgeseg data import annotations.json --out dataset")
def import_labels(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="File or folder of labels.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Dataset to write.", show_default=False)],
    format_name: Annotated[str, typer.Option("--format", help="auto, or one of: coco, masks.")] = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse everything if one frame cannot be imported.")
    ] = False,
    json_to: options.Json = None,
) -> None:
    """Turn labels of other tools into a dataset that recipes and `edgeseg eval` read.

    For dataset owners. Reads COCO JSON (polygons, both kinds of RLE) and folders of masks (class ids or colors). Frames
    that cannot be imported are named and left out; exit 1 if there are any.
    """
    from edgeseg.data.importing import import_dataset

    with progress("frames") as update:
        result = import_dataset(source, out, format_name, strict, update)
    for problem in result.problems:
        log.warning("left out %s: %s", problem.file, problem.what)
    for loss in result.losses:
        log.warning("%s does not fit into class maps: %s", result.format, loss)
    counts = ", ".join(f"{count} {split}" for split, count in result.splits.items())
    shown_on = results(json_to)
    shown_on.print(f"{result.frames} frames ({counts}) of {len(result.classes)} classes, read as {result.format}")
    wrote(out)
    emit(result, json_to)
    raise typer.Exit(1 if result.problems else 0)
