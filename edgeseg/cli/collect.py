"""collect: frames of a stream that are worth labeling."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.run import run_streams

app = typer.Typer()
EXAMPLE = "Example: edgeseg collect street-int8 --source 'rtsp://camera/live' --out gate/ --budget 2000 --per-day 200"


@app.command(rich_help_panel=options.RUN, epilog=EXAMPLE)
def collect(
    bundle: options.Bundle,
    source: Annotated[list[str], typer.Option(help="Where frames come from, as for edgeseg run; repeatable.")],
    out: Annotated[Path, typer.Option(help="Dataset to collect into; with several sources, a folder of them in it.")],
    budget: Annotated[float, typer.Option(min=0.1, help="MB on the disk; the least worthy frames make room.")] = 2000,
    per_day: Annotated[int, typer.Option(min=1, help="Frames in 24 hours, at most.")] = 200,
    random: Annotated[
        int | None,
        typer.Option(min=0, help="How many of --per-day are drawn at random, for edgeseg accuracy [default: a tenth]."),
    ] = None,
    every: Annotated[str, typer.Option(help="Keep the best of every 10s, 5m ... at most.")] = "10s",
    reference: Annotated[
        Path | None, typer.Option(help="Statistics of what is usual (edgeseg drift --out) [default: the bundle's].")
    ] = None,
    blur: Annotated[
        list[str] | None, typer.Option(metavar="CLASS", help="Hide this class in what is kept; repeatable.")
    ] = None,
    fill: Annotated[
        list[str] | None, typer.Option(metavar="CLASS", help="The same, with gray: nothing of it is left.")
    ] = None,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after this many frames.")] = None,
    json_to: options.Json = None,
) -> None:
    """Keep frames that are worth labeling: uncertain, drifted, novel or diverse ones, within a budget.

    For operators. Writes a dataset with the model's class maps as pre-labels, and why each frame was kept
    (collected.jsonl). In a run it is the sink collect://. See docs/how-to/collect.md.
    """
    from edgeseg.stream import config

    place = f"{out}/{{name}}" if len(source) > 1 else str(out)
    sink = f"collect://{place}?disk={budget:.10g}&per_day={per_day}&every={every}"
    if random is not None:
        sink += f"&random={random}"
    if reference is not None:
        sink += f"&reference={reference}"
    streams = config.from_options(source, [sink])
    settings = config.Settings(
        bundle, streams, overlay=False, max_frames=max_frames, blur=tuple(blur or ()), fill=tuple(fill or ())
    )
    run_streams(settings, json_to)
