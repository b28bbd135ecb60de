"""pipeline: every stage of a recipe."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import emit, percent, results, resumable, table, wrote
from edgeseg.errors import EdgesegError, FileError, OptionError

if TYPE_CHECKING:
    from edgeseg.recipe import Recipe

app = typer.Typer()
log = logging.getLogger(__name__)


@app.command(rich_help_panel=options.TRAIN, epilog="Example: edgeseg pipeline models/street/recipe.toml")
def pipeline(
    recipe: options.RecipeFile,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Working folder [default: runs/NAME].")] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Copy the model, its bundles and its card into the recipe's folder.")
    ] = False,
    dvc: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Run nothing: write the stages for DVC into this dvc.yaml.")
    ] = None,
    json_to: options.Json = None,
) -> None:
    """Run every stage of a recipe: teacher, student, distillation, pruning, INT8, bundles, measurements, one report.

    For dataset owners. A stage whose inputs have not changed is skipped; an interrupted run continues where it was.
    Exits 1 if INT8 loses more than the recipe allows.
    """
    from edgeseg import pipeline as stages
    from edgeseg.recipe import Recipe
    from edgeseg.report.page import write

    loaded = Recipe.load(recipe)
    folder = out or (dvc.parent if dvc else Path()) / "runs" / loaded.name
    if dvc:
        _write_dvc(loaded, recipe, folder, dvc)
        return
    with resumable():
        result = stages.run(loaded, folder, lambda text: log.info("%s", text))
    path = folder / "report.json"
    for suffix in (".html", ".md"):
        write([(path, result)], path.with_suffix(suffix))
    shown = table(f"Pipeline {loaded.name}", "model", "mIoU", "MB", "FPS", "p50 ms")
    for name, row in [*((s.stage, s) for s in result.stages), *((b.name, b) for b in result.bundles)]:
        speed = (f"{row.bytes / 1e6:.2f}", f"{row.fps:.0f}", f"{row.latency_ms.p50:.2f}")
        shown.add_row(name, percent(row.miou), *speed)
    results(json_to).print(shown)
    wrote(path.with_suffix(".html"))
    if publish:
        stages.publish(result, folder, recipe.parent)
        wrote(recipe.parent)
    emit(result, json_to)
    over = [row for row in result.int8 if not row.ok]
    if over:
        stopped = EdgesegError(
            f"{over[0].name} loses {over[0].drop:.2f} points of mIoU; the recipe allows {over[0].allowed}.",
            "Give more calibration frames, or allow more: [quantize] frames, max_drop.",
        )
        stopped.exit_code = 1
        raise stopped


def _write_dvc(loaded: Recipe, recipe: Path, folder: Path, path: Path) -> None:
    from edgeseg import dvc

    if path.exists():
        raise FileError(f"{path} exists.", "Remove it, or choose another folder: DVC wants the name dvc.yaml.")
    if path.name != "dvc.yaml":
        raise OptionError(f"DVC does not read {path.name}.", "Give a path that ends in dvc.yaml.")
    dvc.write(loaded, recipe, folder, path)
    wrote(path)
