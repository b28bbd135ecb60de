"""eval, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeseg.cli.common import JSON_OPTION, console, emit, identity, percent, progress, table
from edgeseg.errors import FileError

app = typer.Typer()
BundleArg = Annotated[Path, typer.Argument(help="The bundle's folder.")]
JsonOpt = Annotated[str | None, JSON_OPTION]


@app.command()
def eval(
    bundle: BundleArg,
    data: Annotated[Path, typer.Option(help="Dataset: {train,val,test}/{images,masks} and classes.txt.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    pictures: Annotated[Path | None, typer.Option(help="Draw the worst frames into this folder.")] = None,
    json_to: JsonOpt = None,
) -> None:
    """Measure a bundle's accuracy on labelled frames, through the path that ships."""
    from edgeseg.bundle import Bundle
    from edgeseg.data.dataset import Dataset
    from edgeseg.evaluation.evaluate import evaluate
    from edgeseg.segmenter import Segmenter

    dataset = Dataset.open(data, split)
    loaded = Bundle.load(bundle)
    with Segmenter.open(bundle) as segmenter, progress(f"evaluating {loaded.name}") as update:
        result = evaluate(segmenter, dataset, update)
        if pictures:
            result["pictures"] = _worst(segmenter, dataset, result["worst"], pictures)
    title = f"{loaded.name} on {data} {split} ({result['frames']} frames)"
    shown = table(title, "class", "IoU", "accuracy", "Dice", "BF1")
    for name, row in result["per_class"].items():
        shown.add_row(name, *(percent(row[k]) for k in ("iou", "accuracy", "dice", "boundary_f1")))
    means = ("miou", "mean_accuracy", "dice", "boundary_f1")
    shown.add_section()
    shown.add_row("mean", *(percent(result[k]) for k in means), style="bold")
    console.print(shown)
    ms = result["latency_ms"]
    console.print(f"pixel accuracy {percent(result['pixel_accuracy'])} %, latency p50 {ms['p50']}, p99 {ms['p99']} ms")
    emit({"kind": "eval", "bundle": identity(loaded), "data": {"root": data.name, "split": split}, **result}, json_to)


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="JSON files of eval, bench, run or pipeline.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="FILE.html or FILE.md.")] = Path("report.html"),
) -> None:
    """Draw a report from measurements: one HTML page that works offline, or Markdown."""
    from edgeseg.bench.report import write

    write([(path, read_json(path)) for path in results], out)
    console.print(f"wrote {out}")


def _worst(segmenter: Any, dataset: Any, worst: list[dict[str, Any]], folder: Path) -> list[dict[str, str]]:
    """One picture per worst frame; rows for the result."""
    from edgeseg.data.images import write_image
    from edgeseg.evaluation.pictures import strips

    rows = []
    for row, picture in zip(worst, strips(segmenter, dataset, [row["index"] for row in worst])):
        name = dataset.images[row["index"]].stem
        file = folder / f"{name}.jpg"
        write_image(file, picture)
        title = f"{name}: frame, truth, prediction, differences ({percent(row['pixel_accuracy'])} % of pixels right)"
        rows.append({"title": title, "file": str(file.resolve())})
    return rows


def read_json(path: Path) -> dict[str, Any]:
    from edgeseg.errors import require_file

    try:
        document = json.loads(require_file(path, "Result").read_text())
        if not isinstance(document, dict):
            raise ValueError("not an object")
        return document
    except (ValueError, RecursionError) as error:
        raise FileError(f"Result {path} is not JSON of edgeseg: {error}.", "Make it with --json FILE.") from error
