"""synth: rendered street scenes, as a dataset and as a video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import progress, size, wrote

app = typer.Typer()


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
