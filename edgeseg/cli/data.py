"""edgeseg synth: street scenes made by arithmetic, as a dataset and as a video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.common import console, progress, size

app = typer.Typer(help=__doc__)


@app.command()
def synth(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The dataset to make; must not exist yet.")],
    train: Annotated[int, typer.Option(help="Frames for training.")] = 240,
    val: Annotated[int, typer.Option(help="Frames for choosing the best state.")] = 40,
    test: Annotated[int, typer.Option(help="Frames for the reported accuracy.")] = 60,
    seed: Annotated[int, typer.Option(help="The same seed makes the same frames.")] = 1,
    frame_size: Annotated[str, typer.Option("--size", help="WIDTHxHEIGHT in pixels.")] = "384x224",
    night: Annotated[float, typer.Option(help="0 is day, 1 is night.")] = 0.0,
    fog: Annotated[float, typer.Option(help="0 is clear, 1 leaves about 60 m of sight.")] = 0.0,
    clip: Annotated[Path | None, typer.Option(help="Make a video (MP4) of another street, too.")] = None,
    frames: Annotated[int, typer.Option(help="Frames of the video, at 25 a second.")] = 250,
    clip_size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the video.")] = "1280x720",
) -> None:
    """Make a labeled dataset of street scenes in DIR, without a download."""
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
    console.print(f"{train} + {val} + {test} frames of {frame_size} in {folder}", markup=False, highlight=False)
    if clip:
        with progress("video") as update:
            write_clip(clip, frames=frames, height=clip_height, width=clip_width, night=night, fog=fog, progress=update)
        console.print(f"{frames} frames of {clip_size} in {clip}", markup=False, highlight=False)
