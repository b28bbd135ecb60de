"""accuracy: how good a bundle is in the field, from labeled frames that came back."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import emit, percent, progress, results, resumable, styled, table, wrote
from edgeseg.cli.gate import EXIT, MARKS

if TYPE_CHECKING:
    from rich.console import Console

    from edgeseg.results.accuracy import AccuracyResult, SampleScore
    from edgeseg.results.common import Interval

app = typer.Typer()
log = logging.getLogger(__name__)
SHOWN = 10  # problems named one by one
EXAMPLE = "Example: edgeseg accuracy street-int8 --labels gate-labeled/ --history accuracy.jsonl --min-miou 60"


@app.command(rich_help_panel=options.MEASURE, epilog=EXAMPLE)
def accuracy(
    bundle: options.Bundle,
    labels: Annotated[
        Path, typer.Option(help="Labeled frames: what edgeseg label made, or any dataset.", show_default=False)
    ],
    history: Annotated[
        Path | None, typer.Option(help="Keep the score of every frame in this file (JSON lines), and go on from it.")
    ] = None,
    min_miou: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Points of mIoU that every camera must reach [default: by --max-drop]."),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(min=0, help="Without --min-miou: points that may be lost against the bundle's own evaluation."),
    ] = 2.0,
    window: Annotated[str, typer.Option(help="Figures for each day or week (UTC).")] = "day",
    recent: Annotated[
        float, typer.Option(min=0.001, metavar="DAYS", help="The verdict goes by so many days before the newest frame.")
    ] = 30.0,
    block: Annotated[
        float, typer.Option(min=0.001, help="Seconds within which frames of one camera count as one for the intervals.")
    ] = 60.0,
    prometheus: Annotated[
        Path | None, typer.Option(metavar="FILE.prom", help="Write metrics for node_exporter's textfile collector.")
    ] = None,
    mlflow: Annotated[
        bool, typer.Option("--mlflow", help="Log to MLflow: its server, or mlflow.db beside the history.")
    ] = False,
    json_to: options.Json = None,
) -> None:
    """Evaluate a bundle on labeled frames of the field as they come back: per camera and day, with 95 % intervals.

    For operators. Frames that were drawn at random (edgeseg collect) decide. Exits 1 where the accuracy of a camera is
    below the accepted level, the whole interval, and 3 where the frames are too few to say.
    See docs/how-to/accuracy.md.
    """
    from edgeseg.bundle import Bundle
    from edgeseg.labeling.accuracy import View, accepted_level, evaluate_field
    from edgeseg.telemetry.accuracy import write
    from edgeseg.telemetry.families import require_client
    from edgeseg.telemetry.mlflow_run import log_accuracy, require_mlflow

    if prometheus:
        require_client()  # before an hour of scoring
    if mlflow:
        require_mlflow("--mlflow")
    loaded = Bundle.load(bundle)
    view = View(accepted_level(loaded, min_miou, max_drop), window, recent, block)
    with resumable() if history else nullcontext(), progress("scoring") as update:
        result = evaluate_field(loaded, labels, history, view, update)
    _show(result, results(json_to))
    for problem in result.problems[:SHOWN]:
        log.warning("%s: %s", problem.frame, problem.what)
    if len(result.problems) > SHOWN:
        log.warning("and %d more", len(result.problems) - SHOWN)
    if history:
        wrote(history)
    if prometheus:
        write(result, prometheus)
        wrote(prometheus)
    if mlflow:
        log_accuracy(result, history.parent if history else Path())
    emit(result, json_to)
    if result.verdict:
        raise typer.Exit(EXIT[result.verdict])


def _show(result: AccuracyResult, out: Console) -> None:
    counts = f"{result.known} labeled frames, {result.new} new ({result.replaced} corrected again)"
    title = f"{result.bundle.name}: {counts}; the latest {result.recent:g} days"
    rows = table(title, "camera", "frames", "mIoU, all", "95 %", "at random", "mIoU", "95 %", "")
    for camera in result.cameras:
        verdict = styled(*MARKS[camera.verdict]) if camera.verdict else "-"
        rows.add_row(camera.camera, *_figures(camera.all), *_figures(camera.random), verdict)
    if len(result.cameras) > 1:
        rows.add_row("together", *_figures(result.all), *_figures(result.random), "")
    out.print(rows)
    best = result.random or result.all
    classes = table("by class, of the frames drawn at random" if result.random else "by class", "class", "IoU", "95 %")
    for name, iou in best.iou.items():
        classes.add_row(name, percent(iou), _span(best.iou_interval[name]))
    out.print(classes)
    for camera in result.cameras:
        if camera.text:
            out.print(f"{camera.camera}: {camera.text}")
    if result.limit is None:
        out.print("no accepted level, so no verdict: give --min-miou, or compile the bundle with --data")
    else:
        out.print(f"accepted: {100 * result.limit:.1f}, {result.limit_from}")
    if result.missing:
        out.print(f"{result.missing} frames that were drawn at random are not labeled: the figures are without them")
    for note in result.notes:
        out.print(note)


def _figures(score: SampleScore | None) -> tuple[str, str, str]:
    return ("-", "-", "-") if score is None else (str(score.frames), percent(score.miou), _span(score.interval))


def _span(interval: Interval | None) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else "-"
