"""search: find a student for a recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg import toml
from edgeseg.cli import options
from edgeseg.cli.common import emit, percent, results, resumable, status, table, wrote
from edgeseg.errors import OptionError
from edgeseg.files import write_bytes
from edgeseg.recipe import Recipe

if TYPE_CHECKING:
    from edgeseg.results.search import ArchitectureResult

app = typer.Typer()


@app.command(
    rich_help_panel=options.TRAIN,
    epilog="Example: edgeseg search recipe.toml --data dataset --max-ms 5 --trials 20 --out search",
)
def search(
    recipe: options.RecipeFile,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the recipe that was found and all trials.")
    ] = Path("search"),
    data: Annotated[Path | None, typer.Option("--data", help="Dataset folder to use instead of the recipe's.")] = None,
    trials: Annotated[
        int, typer.Option(help="Designs of the guided search; as many random ones are tried.", min=1)
    ] = 20,
    max_ms: Annotated[
        float | None, typer.Option("--max-ms", help="Largest median latency, in milliseconds.", min=0)
    ] = None,
    target: options.Target = "openvino-cpu",
    precision: Annotated[
        list[str] | None, typer.Option(help="Precision to try; repeatable [default: fp32, int8].")
    ] = None,
    arch: Annotated[
        list[str] | None, typer.Option(help="Family to try; repeatable [default: lite, liteseg, ddrnet].")
    ] = None,
    width: Annotated[list[float] | None, typer.Option(help="Width to try; repeatable [default: 0.25 to 1.5].")] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of training of each design.", min=1)] = 5,
    json_to: options.Json = None,
) -> None:
    """Search family, width, input size and precision of a student: the most accurate within a limit of latency.

    Each design is compiled and timed on the target first, and trained for a few epochs only if it is fast enough;
    random search of the same number of designs runs beside, to show what the guidance is worth. Run again, it
    continues; started twice with the same --out, the processes share the work. Exits 1 if no design holds the limit.
    """
    from edgeseg import backends
    from edgeseg.search import architecture
    from edgeseg.search.designs import Space
    from edgeseg.target import Target

    loaded = Recipe.load(recipe)
    root = data or (loaded.resolve(loaded.data.root) if loaded.data.root else None)
    if root is None:
        raise OptionError(
            f"Recipe {recipe} renders its own frames.", "Render them once with edgeseg synth, give --data."
        )
    profile = Target.load(target)
    if reason := backends.missing(profile):
        raise OptionError(f"Latency on {target} cannot be measured here: {reason}.", "edgeseg targets lists what can.")
    usual = [name for name in ("fp32", "int8") if name in profile.precisions]
    precisions = [profile.require(name) for name in precision or usual]
    from edgeseg.training import nets
    from edgeseg.training.candidate import CandidateMeter

    space = Space.of(loaded, precisions, arch or (), width or ())
    for name in space.archs:
        nets.check(replace(loaded.student.net, arch=name))
    settings = {"data": str(root), "target": target, "max-ms": max_ms, "epochs": epochs, "recipe": loaded.to_dict()}
    architecture.require_same(out / "settings.json", settings)
    with resumable(), status("search") as update:
        meter = CandidateMeter(loaded, root, out / "designs", profile, epochs, max_ms, update)
        result, chosen = architecture.search(
            loaded, target, space, out / "trials", meter, trials, epochs, max_ms, update
        )
    found = chosen.applied_to(replace(loaded, data=replace(loaded.data, root=str(root.resolve()), synthetic=None)))
    path = out / "recipe.toml"
    write_bytes(path, toml.dumps(found.to_dict()).encode())
    result.save(out / "search.json")
    _show(result, json_to)
    wrote(path)
    emit(result, json_to)
    if not result.held:
        raise typer.Exit(1)


def _show(result: ArchitectureResult, json_to: str | None) -> None:
    shown = table(f"{result.recipe} on {result.target}", "design", "val mIoU", "ms", "found by", "")
    for row in result.rows:
        mark = "chosen" if row.name == result.chosen else "front" if row.name in result.front else ""
        miou = "not trained" if row.miou is None else percent(row.miou)
        shown.add_row(row.name, miou, f"{row.ms:.2f}", ", ".join(row.found_by), mark)
    out = results(json_to)
    out.print(shown)
    for name, value in result.hypervolume.items():
        out.print(f"{name}: hypervolume {value:.4f}, {result.seconds[name]:.0f} s")
    out.print(f"{result.chosen} is {result.speedup:.2f} x as fast as {result.own}, the recipe's own")
