"""label: collected frames to whoever labels them, corrected labels back, and where they disagree."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli import options, signals
from edgeseg.cli.common import emit, percent, prepare_ray, progress, results, table, wrote
from edgeseg.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from edgeseg.labeling.cvat import Login
    from edgeseg.results.labeling import Disagreement, LabelImport

app = typer.Typer()
labels = typer.Typer(no_args_is_help=True)
app.add_typer(
    labels,
    name="label",
    rich_help_panel=options.DATA,
    help="Collected frames: export, review, import, compare.",
)
log = logging.getLogger(__name__)
SHOWN = 10  # problems named one by one

Collection = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder that edgeseg collect wrote, or any dataset.", show_default=False)
]
User = Annotated[str, typer.Option(help="User of the server, where there is no access token.")]


@labels.command("export", epilog="Example: edgeseg label export gate/ --format cvat --frames 50 --out gate-cvat/")
def export_labels(
    collection: Collection,
    out: Annotated[Path, typer.Option(help="Folder to write; must be new or empty.", show_default=False)],
    format_name: Annotated[
        str, typer.Option("--format", help="cvat, label_studio, coco, masks, or another of edgeseg data export.")
    ] = "cvat",
    frames: Annotated[int | None, typer.Option(min=1, help="Only so many, those of most worth.")] = None,
    only: Annotated[
        str, typer.Option(metavar="REASON", help="Only frames that were kept for this reason, such as random.")
    ] = "",
    json_to: options.Json = None,
) -> None:
    """Export collected frames with the model's labels, to be corrected in CVAT, Label Studio or another tool."""
    from edgeseg.data.exporting import export_dataset
    from edgeseg.labeling.selecting import selected

    with selected(collection, frames, only) as root, progress("exporting") as update:
        result = export_dataset(root, format_name, out, update)
    shown = results(json_to)
    shown.print(f"{result.frames} frames as {result.format}: {', '.join(result.classes)}")
    for loss in result.losses:
        shown.print(f"not kept: {loss}")
    wrote(out)
    emit(result, json_to)


@labels.command("predict", epilog="Example: edgeseg label predict gate/ --model teacher-fp32/")
def predict_pre_labels(
    collection: Collection,
    model: Annotated[Path, typer.Option(help="Bundle of a larger network with the same classes.", show_default=False)],
    ray: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Predict on a Ray cluster, or on this machine's with local.")
    ] = "",
    json_to: options.Json = None,
) -> None:
    """Replace the pre-labels of collected frames by those of a better model, so that people have less to correct."""
    from edgeseg.labeling.predicting import predict_labels

    prepare_ray(ray)
    with progress("predicting") as update:
        count = predict_labels(collection, model, update, ray)
    results(json_to).print(f"{count} frames have labels of {model.name} now")
    emit({"frames": count, "model": str(model)}, json_to)


@labels.command("import", epilog="Example: edgeseg label import corrected.zip --collection gate/ --out gate-labeled/")
def import_corrected(
    source: Annotated[Path, typer.Argument(help="Corrected labels: a file, folder or archive.", show_default=False)],
    collection: Annotated[
        Path, typer.Option(help="The folder that was exported: its frames are the truth.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Dataset to write.", show_default=False)],
    format_name: Annotated[str, typer.Option("--format", help="Format of the labels; auto looks at them.")] = "auto",
    json_to: options.Json = None,
) -> None:
    """Import corrected labels; frames that do not fit are named and left out.

    Says where the model and the corrections disagree. Exits 1 if a frame was left out.
    """
    from edgeseg.labeling.importing import import_labels

    with progress("importing") as update:
        result = import_labels(source, collection, out, format_name, update)
    _show_import(result, out, json_to)


def _show_import(result: LabelImport, out: Path, json_to: str | None) -> None:
    """What came back, and what did not; exits 1 if a frame was left out."""
    shown = results(json_to)
    shown.print(f"{result.frames} frames from {result.format}; {len(result.missing)} did not come back")
    for loss in result.losses:
        shown.print(f"not kept: {loss}")
    _show(result.disagreement, shown)
    for problem in result.problems[:SHOWN]:
        log.warning("left out %s: %s", problem.frame, problem.what)
    if len(result.problems) > SHOWN:
        log.warning("and %d more", len(result.problems) - SHOWN)
    wrote(out)
    emit(result, json_to)
    if result.problems:
        raise typer.Exit(1)


@labels.command("push", epilog="Example: CVAT_ACCESS_TOKEN=... edgeseg label push gate/ --url https://cvat.example.org")
def push_labels(
    collection: Collection,
    url: Annotated[str, typer.Option(help="Address of the CVAT server.", show_default=False)],
    user: User = "",
    frames: Annotated[int | None, typer.Option(min=1, help="Only so many, those of most worth.")] = None,
    json_to: options.Json = None,
) -> None:
    """Send collected frames and the model's labels to a new task of a CVAT server.

    The access token is read from CVAT_ACCESS_TOKEN, else the password of --user from CVAT_PASSWORD.
    """
    from edgeseg.labeling.cvat import push

    with progress("exporting") as update:
        made = push(collection, url, _login(user), frames, update)
    results(json_to).print(f"{made.frames} frames in task {made.task}: {url.rstrip('/')}/tasks/{made.task}")
    emit(made, json_to)


@labels.command("pull", epilog="Example: CVAT_ACCESS_TOKEN=... edgeseg label pull gate/ --out gate-labeled/")
def pull_labels(
    collection: Collection,
    out: Annotated[Path, typer.Option(help="Dataset to write.", show_default=False)],
    user: User = "",
    json_to: options.Json = None,
) -> None:
    """Import the corrected labels of the task that `label push` made, as `label import` does."""
    from edgeseg.labeling.cvat import pull

    with progress("importing") as update:
        result = pull(collection, _login(user), out, update)
    _show_import(result, out, json_to)


@labels.command("compare", epilog="Example: edgeseg label compare anna/ ben/ --json disagreement.json")
def compare_labels(
    first: Annotated[Path, typer.Argument(help="A dataset.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another one with the same frames.", show_default=False)],
    json_to: options.Json = None,
) -> None:
    """Compare two labelings of the same frames: a model and a human, or two humans. IoU of each class, worst frames."""
    from edgeseg.labeling.compare import compare

    result = compare(first, second)
    _show(result, results(json_to))
    for problem in result.problems[:SHOWN]:
        log.warning("left out: %s", problem)
    emit(result, json_to)


@labels.command("review", epilog="Example: edgeseg label review gate/ --out gate-reviewed/")
def review_labels(
    collection: Collection,
    out: Annotated[Path, typer.Option(help="Dataset for accepted frames; goes on where it was.", show_default=False)],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for a free one.")] = 0,
    json_to: options.Json = None,
) -> None:
    """Review frames in the browser: accept, reject, or give a region another class. Ctrl-C ends it.

    For those without CVAT. The page is served on this machine only.
    """
    from dataclasses import asdict

    from edgeseg.labeling.review import Review, ReviewServer

    review = Review(collection, out)
    with signals.stop_event() as stop, ReviewServer(review, port) as server:
        log.info("review at http://127.0.0.1:%d/", server.port)
        while not stop.wait(0.5):
            pass
    summary = review.summary()
    results(json_to).print(f"{summary.accepted} accepted, {summary.rejected} rejected, {summary.left} left")
    wrote(out)
    emit(asdict(summary), json_to)


def _login(user: str) -> Login:
    from edgeseg.labeling.cvat import Login

    login = Login(os.environ.get("CVAT_ACCESS_TOKEN", ""), user, os.environ.get("CVAT_PASSWORD", ""))
    if not login.token and not (login.user and login.password):
        raise OptionError("CVAT asks who you are.", "Set CVAT_ACCESS_TOKEN; or give --user NAME and set CVAT_PASSWORD.")
    return login


def _show(found: Disagreement, out: Console) -> None:
    title = f"{found.first} and {found.second} on {found.frames} frames: {percent(found.agreement)} % of pixels agree"
    rows = table(title, "class", "IoU")
    for name, iou in found.iou.items():
        rows.add_row(name, percent(iou))
    rows.add_row("mean", percent(found.miou))
    out.print(rows)
    for frame in found.worst[:5]:
        out.print(f"{frame.frame}: {percent(frame.agreement)} % agree ({frame.changed})")
