"""edgeseg run: a bundle on a camera, a video or a folder."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from edgeseg.cli.common import JSON_OPTION, console, emit, table
from edgeseg.errors import unknown
from edgeseg.segmenter import Segmenter
from edgeseg.stream import loop, sinks, sources
from edgeseg.stream.summary import Summary

MODES = ("latency", "throughput")

app = typer.Typer(help=__doc__)


@app.command()
def run(
    bundle: Annotated[Path, typer.Argument(help="The bundle to run.")],
    source: Annotated[str, typer.Option(help="Video file, image folder, 'glob*.png', /dev/video0, synthetic://street")],
    sink: Annotated[
        list[str] | None,
        typer.Option(help="FILE.mp4, FOLDER/, null://, window://; may be repeated. [default: null://]"),
    ] = None,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after this many frames.")] = None,
    mode: Annotated[str | None, typer.Option(help="latency or throughput; by default as the source needs.")] = None,
    no_overlay: Annotated[bool, typer.Option("--no-overlay", help="Write the frames as they came.")] = False,
    json_to: Annotated[str | None, JSON_OPTION] = None,
) -> None:
    """Segment every frame of SOURCE and write the results to every SINK. Ctrl-C ends it cleanly."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's own lines; what matters comes as our errors
    if mode and mode not in MODES:
        raise unknown("mode", mode, MODES)
    with ExitStack() as stack:
        frames = stack.enter_context(sources.open(source))
        segmenter = stack.enter_context(Segmenter.open(bundle, mode or ("latency" if frames.live else "throughput")))
        info = sinks.Info(segmenter.spec, frames.fps, frames.live)
        outputs = [stack.enter_context(sinks.open(uri, info)) for uri in sink or ["null://"]]
        with stopping() as stop, progress_line() as progress:
            summary = loop.run(
                segmenter, frames, outputs, progress, max_frames=max_frames, overlay=not no_overlay, stop=stop
            )
    show(summary)
    emit(summary.to_dict(), json_to)
    if summary.error:
        raise summary.error


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second signal acts as always."""
    stop = threading.Event()

    def handle(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress_line() -> Iterator[loop.OnProgress]:
    """Frames and FPS on one line; nothing where the error stream is no terminal."""
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as line:
        task = line.add_task("", total=None)
        yield lambda s: line.update(task, completed=s.frames, total=s.count, description=f"{s.fps:.1f} FPS")


def show(summary: Summary) -> None:
    title = f"{summary.frames} frames in {summary.seconds:.1f} s: {summary.fps:.1f} FPS ({summary.result})"
    drawn = table(title, "stage (ms)", "p50", "p90", "p99")
    rows = {**summary.stages, **({"latency": summary.latency_ms} if summary.latency_ms else {})}
    for stage, values in rows.items():
        drawn.add_row(stage, *(f"{values[p]:.1f}" for p in ("p50", "p90", "p99")))
    console.print(drawn)
    for place, number in summary.drops.items():
        console.print(f"dropped at {place}: {number}", markup=False, highlight=False)
    for warning in summary.warnings:
        console.print(f"warning: {warning}", markup=False, highlight=False, style="yellow")
