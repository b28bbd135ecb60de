"""pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.common import JSON_OPTION, console, emit, percent, table
from edgeseg.errors import EdgesegError

app = typer.Typer()


@app.command()
def pipeline(
    recipe: Annotated[Path, typer.Argument(help="A recipe, for example models/street/recipe.toml.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Working folder [default: runs/NAME].")] = None,
    publish: Annotated[bool, typer.Option(help="Copy parent, bundles and card into the recipe's folder.")] = False,
    json_to: Annotated[str | None, JSON_OPTION] = None,
) -> None:
    """Teacher, student, distilled, pruned, INT8, compiled, measured: every stage of a recipe, one report.

    A stage whose inputs have not changed is skipped; an interrupted one continues.
    """
    from edgeseg import pipeline as stages
    from edgeseg.recipe import Recipe
    from edgeseg.report.page import write

    loaded = Recipe.load(recipe)
    folder = out or Path("runs") / loaded.name
    report = stages.run(loaded, folder, lambda text: console.print(f"[bold cyan]•[/] {text}", highlight=False))
    path = folder / "report.json"
    for suffix in (".html", ".md"):
        write([(path, report)], path.with_suffix(suffix))
    shown = table(f"Pipeline {loaded.name}", "model", "mIoU", "MB", "FPS", "p50 ms")
    for row in [*report["stages"], *report["bundles"]]:
        name = row.get("stage", row["name"])
        speed = (f"{row['bytes'] / 1e6:.2f}", f"{row['fps']:.0f}", f"{row['latency_ms']['p50']:.2f}")
        shown.add_row(name, percent(row["miou"]), *speed)
    console.print(shown)
    console.print(f"report: {path.with_suffix('.html')}")
    if publish:
        stages.publish(report, folder, recipe.parent)
        console.print(f"published into {recipe.parent}")
    emit(report, json_to)
    over = [row for row in report["int8"] if not row["ok"]]
    if over:
        stopped = EdgesegError(
            f"{over[0]['name']} loses {over[0]['drop']:.2f} points of mIoU; the recipe allows {over[0]['allowed']}.",
            "Give more calibration frames, or allow more: [quantize] frames, max_drop.",
        )
        stopped.exit_code = 1
        raise stopped
