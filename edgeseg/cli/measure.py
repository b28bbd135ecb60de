"""eval, report, model-card: accuracy, and what measurements look like to people."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli import options
from edgeseg.cli.common import emit, percent, progress, results, show_slices, span, table, wrote
from edgeseg.errors import FileError, OptionError, unknown

if TYPE_CHECKING:
    from edgeseg.data.dataset import Dataset
    from edgeseg.results.clip import ClipResult
    from edgeseg.results.common import Picture
    from edgeseg.results.evaluation import EvalResult, WorstFrame
    from edgeseg.segmenter import Segmenter

app = typer.Typer()


@app.command(
    "eval",
    rich_help_panel=options.MEASURE,
    epilog="Example: edgeseg eval street-int8 --data data --page errors.html",
)
def evaluate(
    bundle: options.Bundle,
    data: options.OptionalData = None,
    split: options.Split = "test",
    clip: Annotated[
        Path | None,
        typer.Option(help="In place of --data: a video, as DIR/images in order and DIR/masks.", metavar="DIR"),
    ] = None,
    reuse: options.Reuse = None,
    max_drop: options.MaxDrop = None,
    stabilize: options.Stabilize = False,
    codec: Annotated[
        str, typer.Option(help="With --clip: h264, as a camera sends the frames, or none, as they are.")
    ] = "h264",
    pictures: Annotated[Path | None, typer.Option(help="Draw the worst frames into this folder.")] = None,
    beside: Annotated[Path | None, typer.Option(help="Another bundle to draw beside this one in the pictures.")] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="Write an error page (.html): confusion, edges, small objects, worst frames."),
    ] = None,
    scales: Annotated[str, typer.Option(help="Average over these enlargements, like 1,1.5 (not for a device).")] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored frame (not for a device).")] = False,
    tile: options.Tile = False,
    overlap: options.TileOverlap = None,
    blend: options.TileBlend = "gaussian",
    slices: options.Slices = None,
    class_map: Annotated[
        Path | None,
        typer.Option("--map", metavar="FILE", help="TOML: by which classes a network with other ones is evaluated."),
    ] = None,
    json_to: options.Json = None,
) -> None:
    """Measure a bundle's accuracy on a labeled dataset, with 95 % intervals.

    For everyone who needs a number that can be trusted: frames go through the same path as in `edgeseg run`.
    """
    from dataclasses import replace

    from edgeseg.bundle import Bundle
    from edgeseg.data.dataset import Dataset
    from edgeseg.data.mapping import read_match
    from edgeseg.data.slices import read_slices
    from edgeseg.evaluation.augmented import Augmented
    from edgeseg.evaluation.evaluate import evaluate as measure
    from edgeseg.machine import fingerprint
    from edgeseg.report.page import write
    from edgeseg.results.evaluation import Averaging
    from edgeseg.runtime import PROXY, open_segmenter
    from edgeseg.tiling import tiled

    if tile and (clip or pictures or page or flip or scales != "1"):
        raise OptionError(
            "--tile goes with --data, --split, --slices, --map and --json.", "Leave the other options out."
        )
    if clip is not None:
        if data or pictures or beside or page or flip or slices or class_map or scales != "1":
            raise OptionError(
                "--clip goes with --reuse, --max-drop, --stabilize, --codec and --json.", "Leave the other options out."
            )
        _evaluate_clip(bundle, clip, reuse, max_drop, stabilize, codec, json_to)
        return
    if data is None:
        raise OptionError("No data is given.", "Add --data DATASET, or --clip DIR for a video.")
    if reuse or max_drop is not None or stabilize:
        raise OptionError("--reuse, --max-drop and --stabilize are for videos.", "Add --clip DIR in place of --data.")
    if beside and not (pictures or page):
        raise OptionError(
            "--beside draws pictures, and none are written.", "Name where: --pictures DIR or --page FILE.html"
        )
    if class_map and (pictures or page):
        raise OptionError(
            "--map compares other classes than those that pictures show.", "Leave out --pictures, --page."
        )
    averaging = Averaging(_scales(scales), flip) if scales != "1" or flip else None
    dataset = Dataset.open(data, split)
    parts = read_slices(slices, [image.stem for image in dataset.images]) if slices else ()
    loaded = Bundle.load(bundle)
    with ExitStack() as opened, progress(f"evaluating {loaded.name}") as update:
        segmenter = opened.enter_context(open_segmenter(loaded, backend=PROXY))
        others = [opened.enter_context(open_segmenter(beside, backend=PROXY))] if beside else []
        measured = Augmented(segmenter, averaging.scales, flip) if averaging else tiled(segmenter, tile, overlap, blend)
        match = read_match(class_map, dataset.classes, loaded.spec.classes) if class_map else None
        result = measure(measured, dataset, update, page is not None, parts, match)
        result = replace(
            result,
            bundle=loaded.identity,
            machine=fingerprint(),
            averaged=averaging,
            backend=segmenter.backend,
            class_map=class_map.name if class_map else "",
        )
        if folder := pictures or (page.with_suffix("") if page else None):
            result = replace(result, pictures=_draw_worst(segmenter, dataset, result.worst, folder, others))
            wrote(folder)
    _show(f"{loaded.name} on {data} {split} ({result.frames} frames)", result, json_to)
    emit(result, json_to)
    if page:
        write([(page, result)], page)
        wrote(page)


@app.command(
    rich_help_panel=options.MEASURE,
    epilog="Example: edgeseg report eval.json bench.json --out report.html",
)
def report(
    results: Annotated[
        list[Path],
        typer.Argument(help="JSON files of eval, bench, run, gate, control, autotune or pipeline.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="FILE.html or FILE.md.")] = Path("report.html"),
) -> None:
    """Draw results as one HTML page that works offline, or as Markdown.

    For people who prefer a page to JSON. Several bundles are set side by side.
    """
    from edgeseg.report.page import load, write

    write([(path, load(path)) for path in results], out)
    wrote(out)


@app.command(
    "model-card",
    rich_help_panel=options.MEASURE,
    epilog="Example: edgeseg model-card recipe.toml runs/street/report.json --out card.md",
)
def model_card(
    recipe: options.RecipeFile,
    results: Annotated[
        list[Path],
        typer.Argument(help="JSON of a pipeline; or of eval, bench and training stages.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Model card to write (.md).")] = Path("card.md"),
) -> None:
    """Write a model card from a recipe and measurements: use, data, license, figures, limits, lineage.

    For whoever publishes a model.
    """
    from edgeseg.files import write_bytes
    from edgeseg.recipe import Recipe
    from edgeseg.records import read_json
    from edgeseg.report.model_card import model_card as draw

    measured = [_training_or_result(read_json(path), path) for path in results]
    try:
        text = draw(Recipe.load(recipe), measured)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        names = ", ".join(map(str, results))
        raise FileError(
            f"No model card can be drawn from {names}: {type(error).__name__} {error}.", "Measure again."
        ) from None
    write_bytes(out, text.encode())
    wrote(out)


def _training_or_result(document: Mapping[str, Any], path: Path) -> Any:
    from edgeseg.report.page import parse
    from edgeseg.results.stage import StageResult

    return StageResult.from_dict(document, path) if document.get("kind") == StageResult.KIND else parse(document, path)


def _evaluate_clip(
    bundle: Path,
    clip: Path,
    reuse: str | None,
    max_drop: float | None,
    stabilize: bool,
    codec: str,
    json_to: str | None,
) -> None:
    from dataclasses import replace

    from edgeseg.bundle import Bundle
    from edgeseg.evaluation.clip import CODECS, ClipFrames, evaluate_clip, open_clip
    from edgeseg.machine import fingerprint
    from edgeseg.reuse.policy import parse
    from edgeseg.runtime import PROXY, open_segmenter

    if codec not in CODECS:
        raise unknown("codec", codec, CODECS)
    every = reuse or "1"
    loaded = Bundle.load(bundle)
    calibration = loaded.manifest.reuse
    policy = parse(every, max_drop, calibration.points if calibration else None)
    dataset = open_clip(clip, loaded.spec)
    with open_segmenter(loaded, backend=PROXY) as segmenter, progress(f"evaluating {loaded.name}") as update:
        frames = ClipFrames(dataset, codec)
        result = evaluate_clip(segmenter, dataset, frames, policy, stabilize, update)
    result = replace(result, reuse=every, motion=frames.motion, bundle=loaded.identity, machine=fingerprint())
    _show_clip(f"{loaded.name} on {clip} ({result.frames} frames, motion: {result.motion})", result, json_to)
    emit(result, json_to)


def _show_clip(title: str, result: ClipResult, json_to: str | None) -> None:
    shown = table(title, "", "mIoU", "flicker %", "FPS", "key frames %")
    shown.add_row(
        "every frame",
        percent(result.miou_without_reuse),
        percent(result.flicker_without_reuse),
        f"{result.fps_without_reuse:.1f}",
        "100.0",
    )
    what = f"reuse {result.reuse}" + (", stabilized" if result.stabilized else "")
    shown.add_row(
        what,
        percent(result.miou),
        percent(result.flicker),
        f"{result.fps:.1f}",
        percent(result.keyframes),
        style="bold",
    )
    out = results(json_to)
    out.print(shown)
    out.print(f"points of mIoU lost: {result.drop}; {result.fps / result.fps_without_reuse:.2f} times as fast")
    if result.estimated_drop is not None:
        out.print(f"loss as --reuse auto estimated it: {result.estimated_drop:.2f} points")


def _show(title: str, result: EvalResult, json_to: str | None) -> None:
    shown = table(title, "class", "IoU", "95 %", "accuracy", "Dice", "BF1")
    for name, row in result.per_class.items():
        rest = map(percent, (row.accuracy, row.dice, row.boundary_f1))
        shown.add_row(name, percent(row.iou), span(result.interval.iou[name]), *rest)
    shown.add_section()
    means = map(percent, (result.mean_accuracy, result.dice, result.boundary_f1))
    shown.add_row("mean", percent(result.miou), span(result.interval.miou), *means, style="bold")
    shown_on = results(json_to)
    shown_on.print(shown)
    ms = result.latency_ms
    speed = f"latency p50 {ms.p50} ms, p99 {ms.p99} ms"
    if result.backend.startswith("through"):
        speed = f"measured {result.backend}, not on its device: speeds say nothing"
    shown_on.print(f"pixel accuracy {percent(result.pixel_accuracy)} %, {speed}")
    show_slices(result.slices, shown_on)


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(
            f"--scales {text!r} is not a list of numbers.", "Expected, for example: --scales 1,1.25,1.5"
        ) from None


def _draw_worst(
    segmenter: Segmenter, dataset: Dataset, worst: tuple[WorstFrame, ...], folder: Path, others: list[Segmenter]
) -> tuple[Picture, ...]:
    """One picture for each of the worst frames."""
    from edgeseg.evaluation.pictures import strips
    from edgeseg.images import write_image
    from edgeseg.results.common import Picture

    rows = []
    for row, picture in zip(worst, strips(segmenter, dataset, [row.index for row in worst], *others)):
        name = dataset.images[row.index].stem
        file = folder / f"{name}.jpg"
        write_image(file, picture)
        also = ", the other's prediction and differences" if others else ""
        share = percent(row.pixel_accuracy)
        title = f"{name}: frame, truth, prediction, differences{also} ({share} % of pixels right)"
        rows.append(Picture(title, str(file.resolve())))
    return tuple(rows)
