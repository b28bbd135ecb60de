"""eval, report, card."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeseg.cli.common import JSON_OPTION, console, emit, identity, percent, progress, table
from edgeseg.errors import FileError, OptionError
from edgeseg.machine import fingerprint

app = typer.Typer()
BundleArg = Annotated[Path, typer.Argument(help="The bundle's folder.")]
JsonOpt = Annotated[str | None, JSON_OPTION]


@app.command()
def eval(
    bundle: BundleArg,
    data: Annotated[Path, typer.Option(help="Dataset: {train,val,test}/{images,masks} and classes.txt.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    pictures: Annotated[Path | None, typer.Option(help="Draw the worst frames into this folder.")] = None,
    beside: Annotated[Path | None, typer.Option(help="Another bundle, drawn beside this one in the pictures.")] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write an error page (.html): confusion, edges, small objects, worst frames.")
    ] = None,
    scales: Annotated[str, typer.Option(help="Average over these enlargements, like 1,1.5 (not for a device).")] = "1",
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored frame (not for a device).")] = False,
    json_to: JsonOpt = None,
) -> None:
    """Measure a bundle's accuracy on labeled frames, through the path that ships."""
    from edgeseg.bundle import Bundle
    from edgeseg.data.dataset import Dataset
    from edgeseg.evaluation.augmented import Augmented
    from edgeseg.evaluation.evaluate import evaluate
    from edgeseg.report.page import write
    from edgeseg.runtime import open_segmenter

    if beside and not (pictures or page):
        raise OptionError("--beside is for pictures.", "Say where they go: --pictures DIR or --page FILE.html")
    averaged = scales != "1" or flip
    dataset = Dataset.open(data, split)
    loaded = Bundle.load(bundle)
    with ExitStack() as opened, progress(f"evaluating {loaded.name}") as update:
        segmenter = opened.enter_context(open_segmenter(bundle))
        others = [opened.enter_context(open_segmenter(beside))] if beside else []
        judged = Augmented(segmenter, _scales(scales), flip) if averaged else segmenter
        result = evaluate(judged, dataset, update, study=page is not None)
        if pictures or page:
            folder = pictures or (page or Path()).with_suffix("")
            result["pictures"] = _worst(segmenter, dataset, result["worst"], folder, others)
    if averaged:
        result["averaged"] = {"scales": list(_scales(scales)), "flip": flip}
    _show(f"{loaded.name} on {data} {split} ({result['frames']} frames)", result)
    about = {"data": {"root": data.name, "split": split}, "machine": fingerprint()}
    document = {"kind": "eval", "bundle": identity(loaded), **about, **result}
    emit(document, json_to)
    if page:
        write([(page, document)], page)
        console.print(f"wrote {page}")


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="JSON files of eval, bench, run or pipeline.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="FILE.html or FILE.md.")] = Path("report.html"),
) -> None:
    """Draw a report from measurements: one HTML page that works offline, or Markdown."""
    from edgeseg.report.page import write

    write([(path, read_json(path)) for path in results], out)
    console.print(f"wrote {out}")


@app.command()
def card(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a TOML file.", show_default=False)],
    results: Annotated[list[Path], typer.Argument(help="JSON of pipeline; or of eval, bench and training.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The card to write (.md).")] = Path("card.md"),
) -> None:
    """Write a model card from a recipe and measurements: use, data, license, figures, limits, lineage."""
    from edgeseg.files import write_bytes
    from edgeseg.recipe import Recipe
    from edgeseg.report.model_card import card as draw

    documents = [read_json(path) for path in results]
    try:
        text = draw(Recipe.load(recipe).to_dict(), documents)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        names = ", ".join(map(str, results))
        raise FileError(
            f"No card can be drawn from {names}: {type(error).__name__} {error}.", "Measure again."
        ) from None
    write_bytes(out, text.encode())
    console.print(f"wrote {out}")


def _show(title: str, result: dict[str, Any]) -> None:
    shown = table(title, "class", "IoU", "95 %", "accuracy", "Dice", "BF1")
    spans = result["interval"]
    for name, row in result["per_class"].items():
        rest = (percent(row[k]) for k in ("accuracy", "dice", "boundary_f1"))
        shown.add_row(name, percent(row["iou"]), _span(spans["iou"][name]), *rest)
    shown.add_section()
    means = (percent(result[k]) for k in ("mean_accuracy", "dice", "boundary_f1"))
    shown.add_row("mean", percent(result["miou"]), _span(spans["miou"]), *means, style="bold")
    console.print(shown)
    ms = result["latency_ms"]
    console.print(f"pixel accuracy {percent(result['pixel_accuracy'])} %, latency p50 {ms['p50']}, p99 {ms['p99']} ms")


def _span(ends: list[float] | None) -> str:
    return "-" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"--scales {text!r} are no numbers.", "Example: --scales 1,1.25,1.5") from None


def _worst(
    segmenter: Any, dataset: Any, worst: list[dict[str, Any]], folder: Path, others: list[Any]
) -> list[dict[str, str]]:
    """One picture per worst frame; rows for the result."""
    from edgeseg.evaluation.pictures import strips
    from edgeseg.images import write_image

    rows = []
    for row, picture in zip(worst, strips(segmenter, dataset, [row["index"] for row in worst], *others)):
        name = dataset.images[row["index"]].stem
        file = folder / f"{name}.jpg"
        write_image(file, picture)
        also = ", the other's prediction and differences" if others else ""
        share = percent(row["pixel_accuracy"])
        title = f"{name}: frame, truth, prediction, differences{also} ({share} % of pixels right)"
        rows.append({"title": title, "file": str(file.resolve())})
    return rows


def read_json(path: Path) -> dict[str, Any]:
    from edgeseg.files import require_file

    try:
        document = json.loads(require_file(path, "Result").read_text())
        if not isinstance(document, dict):
            raise ValueError("not an object")
        return document
    except (ValueError, RecursionError) as error:
        raise FileError(f"Result {path} is not JSON of edgeseg: {error}.", "Make it with --json FILE.") from error
