"""init: a first recipe for a dataset."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import emit, progress, results, table, wrote
from edgeseg.cli.dataset import DatasetFolder

app = typer.Typer()
log = logging.getLogger(__name__)
PIPELINE_NEEDS = {"torch": "train", "lightning_fabric": "train", "onnx": "compress"}  # package: extra


def complete_presets(incomplete: str) -> list[str]:
    from edgeseg.data.recipe_draft import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


@app.command(
    rich_help_panel=options.TRAIN,
    epilog="Example: edgeseg init dataset --out recipe.toml && edgeseg pipeline recipe.toml",
)
def init(
    dataset: DatasetFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="Recipe to write; must not exist.")] = Path("recipe.toml"),
    preset: Annotated[str, typer.Option(help="small, medium or accurate.", autocompletion=complete_presets)] = "medium",
    json_to: options.Json = None,
) -> None:
    """Look at a dataset and write a first recipe for it, with the reason for every value.

    For dataset owners: `edgeseg pipeline` runs the recipe as it is. Input size, epochs and class weights come from the
    train split, targets from this machine. Nothing is trained or downloaded. Refuses a dataset that no recipe can use.
    """
    from edgeseg.data.recipe_draft import draft, recipe_text
    from edgeseg.data.stats import dataset_stats
    from edgeseg.errors import EdgesegError, FileError
    from edgeseg.files import write_bytes
    from edgeseg.recipe import Recipe

    if out.exists():
        raise FileError(f"{out} exists.", "Choose another name with --out, or remove it.")
    with progress("frames") as update:
        stats = dataset_stats(dataset, update)
    result = draft(stats, dataset, out, preset)
    write_bytes(out, recipe_text(result).encode())
    try:
        Recipe.load(out)
    except EdgesegError:
        out.unlink()
        raise
    shown = table(f"Recipe {preset} for {dataset}", "key", "value")
    for choice in result.choices:
        shown.add_row(choice.key, choice.value)
    results(json_to).print(shown)
    for warning in result.warnings:
        log.warning("%s", warning)
    if extras := {extra for package, extra in PIPELINE_NEEDS.items() if importlib.util.find_spec(package) is None}:
        log.warning("edgeseg pipeline needs more packages: pip install 'edgeseg[%s]'", ",".join(sorted(extras)))
    wrote(out)
    results(json_to).print(f"The reasons are in it. Next: edgeseg pipeline {out}")
    emit(result, json_to)
