"""drift: whether a stream still looks like what the bundle was made for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli import options, signals
from edgeseg.cli.common import emit, results, status, table, wrote
from edgeseg.cli.run import progress_reporter
from edgeseg.errors import OptionError
from edgeseg.stream.redact import redact

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.results.drift import DriftResult, ReferenceStatistics

app = typer.Typer()
EXAMPLE = "Example: edgeseg drift street-int8 --source 'rtsp://camera/live' --pictures drift/ --json drift.json"


@app.command(rich_help_panel=options.RUN, epilog=EXAMPLE)
def drift(
    bundle: options.Bundle,
    source: Annotated[str | None, typer.Option(help="The stream to watch, as for edgeseg run.")] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="What it should look like: a file of --out, or frames (a video, a folder, any source) [default: what "
            "is in the bundle]."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the statistics of --reference to this file, for later.")
    ] = None,
    sequence: Annotated[
        bool | None,
        typer.Option(
            "--sequence/--stills",
            help="Whether the frames of --reference follow each other [default: those of a folder do not].",
        ),
    ] = None,
    picture: Annotated[
        bool, typer.Option("--picture/--no-picture", help="Keep a small picture of --reference in --out.")
    ] = True,
    pictures: Annotated[Path | None, typer.Option(help="Folder for then-and-now pictures of alarms.")] = None,
    days: Annotated[float, typer.Option(min=0.001, help="Days between two false alarms, on average, at least.")] = 7.0,
    patience: Annotated[int, typer.Option(min=1, help="Frames of evidence that an alarm takes at least.")] = 180,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after this many frames.")] = None,
    json_to: options.Json = None,
) -> None:
    """Watch a stream for drift: light, focus, color, what is seen and how sure the model is.

    For operators. Says what has changed, and since when. The bound on false alarms holds for correlated frames, too.
    See docs/how-to/drift.md.
    """
    from edgeseg.bundle import Bundle
    from edgeseg.stream.drift import watch
    from edgeseg.stream.redact import redact_all

    if source is None and out is None:
        raise OptionError("Nothing to do.", "Give --source URI to watch, or --reference FRAMES with --out FILE.")
    if out is not None and (reference is None or reference.endswith(".json")):
        raise OptionError("--out needs frames to make statistics of.", "Give them: --reference FRAMES")
    loaded = Bundle.load(bundle)
    expected = _reference(loaded, reference, sequence, picture)
    if out is not None:
        expected.save(out)
        wrote(out)
    if source is None:
        return
    with signals.stop_event() as stop, progress_reporter("drift") as on_progress:
        watched = watch(
            loaded, source, expected, days=days, patience=patience, pictures=pictures, max_frames=max_frames,
            stop=stop, on_progress=on_progress,
        )  # fmt: skip
    _show(watched, json_to)
    emit({key: redact_all(value) for key, value in watched.to_dict().items()}, json_to)


def _reference(bundle: Bundle, given: str | None, sequence: bool | None, picture: bool) -> ReferenceStatistics:
    from edgeseg.monitoring.reference import load, require
    from edgeseg.runtime import open_segmenter
    from edgeseg.stream.drift import reference_from

    if given is None:
        return require(bundle)
    if given.endswith(".json"):
        return load(Path(given), bundle.spec.classes)
    with status(f"reference statistics of {redact(given)}"), open_segmenter(bundle, margin=True) as segmenter:
        return reference_from(segmenter, given, sequence, picture)


def _show(watched: DriftResult, json_to: str | None) -> None:
    out = results(json_to)
    title = f"{len(watched.alarms)} alarms in {watched.frames} frames, {watched.reference} reference frames"
    shown = table(title, "statistic", "frame", "since", "what")
    for alarm in watched.alarms:
        shown.add_row(alarm.statistic, str(alarm.frame), str(alarm.since), alarm.what)
    out.print(shown)
    days = watched.bound / 86400 / (watched.fps or 30)
    out.print(f"While nothing changes, a false alarm comes once in {days:g} days or less often, on average.")
    if watched.cost_ms is not None and watched.frame_ms:
        share = watched.cost_ms / watched.frame_ms
        out.print(f"Watching takes {watched.cost_ms:.3f} ms a frame, {share:.1%} of the model's time.")
    for drawn in watched.pictures:
        wrote(drawn.file)
