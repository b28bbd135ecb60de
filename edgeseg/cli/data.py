"""synth: rendered street scenes, as a dataset and as a video. data import, data export: labels of other tools. data
check: what is wrong with a dataset."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import emit, prepare_ray, progress, results, size, wrote
from edgeseg.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from edgeseg.results.check import CheckResult, Finding

app = typer.Typer()
datasets = typer.Typer(no_args_is_help=True)
app.add_typer(datasets, name="data", rich_help_panel=options.DATA, help="Datasets: import, export, check.")
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
    instances: Annotated[
        bool, typer.Option("--instances", help="Also write which car and pedestrian each pixel shows.")
    ] = False,
    clip: Annotated[Path | None, typer.Option(help="Also render a video (MP4) of another street.")] = None,
    frames: Annotated[int, typer.Option(help="Frames of the video, 25 per second.")] = 250,
    clip_size: Annotated[str, typer.Option(metavar="WxH", help="Size of the video.")] = "1280x720",
) -> None:
    """Render a labeled dataset of street scenes, without a download.

    For trying edgeseg out, and for tests: the labels are exact.
    """
    from edgeseg.stream.encoders import encoder_for
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
            instances=instances,
            progress=update,
        )
    wrote(folder)
    if clip:
        with progress("video") as update:
            write_clip(
                clip,
                frames=frames,
                height=clip_height,
                width=clip_width,
                night=night,
                fog=fog,
                progress=update,
                open_writer=encoder_for(clip),
            )
        wrote(clip)


def complete_formats(incomplete: str) -> list[str]:
    from edgeseg.data import formats

    return [name for name in formats.names() if name.startswith(incomplete)]


@datasets.command("import", epilog="Example: edgeseg data import annotations.zip --out dataset --map classes.toml")
def import_labels(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="File, folder or archive of labels.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Dataset to write.", show_default=False)],
    format_name: Annotated[
        str, typer.Option("--format", help="auto, or the format's name.", autocompletion=complete_formats)
    ] = "auto",
    class_map: Annotated[
        Path | None, typer.Option("--map", help="TOML: which classes are merged, ignored, and in which order.")
    ] = None,
    colors: Annotated[
        Path | None, typer.Option("--colors", help="Names and colors of the classes, for masks in color.")
    ] = None,
    blur: Annotated[
        list[str] | None, typer.Option(metavar="CLASS", help="Blur the pixels of a class of SRC; repeatable.")
    ] = None,
    face_model: Annotated[Path | None, typer.Option(help="Blur the faces that this YuNet model (ONNX) finds.")] = None,
    ray: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Write frames on a Ray cluster, or on this machine's with local.")
    ] = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse everything if one frame cannot be imported.")
    ] = False,
    json_to: options.Json = None,
) -> None:
    """Turn labels of other tools into a dataset that recipes and `edgeseg eval` read.

    For dataset owners. Reads masks of ids or colors, Pascal VOC, COCO and COCO panoptic, CVAT, LabelMe, VIA,
    Supervisely, Label Studio, YOLO, Cityscapes and CamVid; zip and tar archives, too. What a class map cannot hold is
    named. Frames that cannot be imported are named and left out; exit 1 if there are any.
    """
    from edgeseg.data.anonymizing import FACES
    from edgeseg.data.importing import import_dataset

    prepare_ray(ray)
    with progress("frames") as update:
        result = import_dataset(
            source, out, format_name, strict, update,
            class_map=class_map, colors=colors, blur=blur or (), face_model=face_model, ray=ray,
        )  # fmt: skip
    for problem in result.problems:
        log.warning("left out %s: %s", problem.file, problem.what)
    for loss in result.losses:
        log.warning("%s does not fit into class maps: %s", result.format, loss)
    counts = ", ".join(f"{count} {split}" for split, count in result.splits.items())
    shown_on = results(json_to)
    objects = f", objects in {result.instances} of them" if result.instances else ""
    shown_on.print(
        f"read as {result.format}: {result.frames} frames ({counts}){objects}, {len(result.classes)} classes"
        + (f", {len(result.losses)} kinds of losses" if result.losses else "")
        + (f", {len(result.problems)} frames left out" if result.problems else "")
    )
    for name, (r, g, b) in zip(result.classes, result.colors):
        shown_on.print(f"  {r} {g} {b}  {name}", markup=False)
    if result.colors:
        shown_on.print("The classes are the colors of the masks. To name them: --colors FILE with name,r,g,b lines.")
    if result.blurred:
        hidden = ", ".join(f"{count} {name}" if name == FACES else f"{name} in {count} frames" for name, count in
                           result.blurred.items())  # fmt: skip
        shown_on.print(f"blurred: {hidden}", markup=False)
    wrote(out)
    emit(result, json_to)
    raise typer.Exit(1 if result.problems else 0)


@datasets.command("export", epilog="Example: edgeseg data export dataset --format coco --out labels")
def export_labels(
    dataset: Annotated[
        Path,
        typer.Argument(metavar="DATASET", help="Dataset: ROOT/{train,val,test}/{images,masks}.", show_default=False),
    ],
    format_name: Annotated[
        str, typer.Option("--format", help="The format's name.", show_default=False, autocompletion=complete_formats)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; new or empty.", show_default=False)],
    json_to: options.Json = None,
) -> None:
    """Write a dataset as labels of other tools.

    For dataset owners whose labels go back to a labeling tool. What the format cannot hold is named.
    """
    from edgeseg.data.exporting import export_dataset

    with progress("frames") as update:
        result = export_dataset(dataset, format_name, out, update)
    for loss in result.losses:
        log.warning("%s cannot hold everything: %s", result.format, loss)
    counts = ", ".join(f"{count} {split}" for split, count in result.splits.items())
    results(json_to).print(
        f"written as {result.format}: {result.frames} frames ({counts}), {len(result.classes)} classes"
    )
    wrote(out)
    emit(result, json_to)


SHOWN = 3  # findings of a kind on the terminal


def complete_checks(incomplete: str) -> list[str]:
    from edgeseg.data import checks

    return [name for name in checks.names() if name.startswith(incomplete)]


@datasets.command("check", epilog="Example: edgeseg data check dataset --report check.html")
def check(
    dataset: Annotated[
        Path,
        typer.Argument(metavar="DATASET", help="Dataset: ROOT/{train,val,test}/{images,masks}.", show_default=False),
    ],
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle of the same classes: look for labels that it is sure are wrong.")
    ] = None,
    face_model: Annotated[
        Path | None, typer.Option(help="Look for faces with this YuNet model (ONNX).")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a report (.html or .md) with pictures of the worst.")
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what can be without loss; what is replaced goes to DATASET/.removed.")
    ] = False,
    skip: Annotated[
        list[str] | None, typer.Option(help="Leave out a check; several times for several.",
                                       autocompletion=complete_checks)
    ] = None,
    ray: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Look at frames on a Ray cluster, or on this machine's with local.")
    ] = "",
    json_to: options.Json = None,
) -> None:  # fmt: skip
    """Look for what is wrong with a dataset: files, labels, copies across splits.

    For dataset owners, before training. Exit 1 if there are errors; warnings are for looking at.
    """
    from edgeseg.report.page import write

    if report and report.suffix not in (".html", ".md"):
        raise OptionError(f"--report {report} is of no known type.", "Expected FILE.html or FILE.md.")
    prepare_ray(ray)
    given = _Given(dataset, bundle, skip or [], face_model, ray)
    result = _check_and_fix(given) if fix else _check(given)
    _show(result, json_to)
    if report:
        from edgeseg.report.check import draw_worst

        result = replace(result, pictures=draw_worst(result, dataset, report.with_suffix("")))
        write([(report, result)], report)
        wrote(report)
    emit(result, json_to)
    raise typer.Exit(1 if result.errors else 0)


@dataclass(frozen=True)
class _Given:
    dataset: Path
    bundle: Path | None
    skip: list[str]
    face_model: Path | None
    ray: str


def _check(given: _Given) -> CheckResult:
    from edgeseg.data.checking import check_dataset

    with progress("frames") as update:
        return check_dataset(given.dataset, given.bundle, given.skip, update, given.face_model, given.ray)


def _check_and_fix(given: _Given) -> CheckResult:
    """Check, and check again where something was fixed."""
    from edgeseg.data.checking import fix_dataset
    from edgeseg.data.dataset import require_files

    require_files(given.dataset, "data check --fix")
    result = _check(given)
    fixed = fix_dataset(given.dataset, result)
    return replace(_check(given), fixed=fixed) if fixed else result


def _show(result: CheckResult, json_to: str | None) -> None:
    shown_on = results(json_to)
    for severity, findings in (("error", result.errors), ("warning", result.warnings)):
        _print_worst(shown_on, severity, findings)
    for line in result.fixed:
        shown_on.print(f"fixed {line}")
    for line in result.datasheet.lines() if result.datasheet else ():
        shown_on.print(line)
    for reason in result.skipped:
        log.info("skipped %s", reason)
    counts = ", ".join(f"{count} {split}" for split, count in result.splits.items())
    shown_on.print(
        f"{result.frames} frames ({counts}): {len(result.errors)} errors, {len(result.warnings)} warnings, "
        f"{len(result.groups)} groups of neighboring video frames; nothing was found in {result.score:g} % of frames"
    )


def _print_worst(shown_on: Console, severity: str, findings: tuple[Finding, ...]) -> None:
    """The worst of each kind; --json and --report have all."""
    for kind, count in Counter(f.kind for f in findings).items():
        shown_on.print(f"{severity} {kind}: {count}")
        for finding in [f for f in findings if f.kind == kind][:SHOWN]:
            shown_on.print(f"  {finding.file or finding.split or '-'}: {finding.what}")
        if count > SHOWN:
            shown_on.print(f"  and {count - SHOWN} more")
