"""data stats, data split, data shard, data show: a dataset in figures, divided anew, in archives, as a picture."""

from __future__ import annotations

import dataclasses
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import emit, percent, progress, results, resumable, table, wrote
from edgeseg.cli.data import datasets
from edgeseg.errors import OptionError, unknown

if TYPE_CHECKING:
    from edgeseg.data.dataset import Dataset
    from edgeseg.data.splitting import SplitResult
    from edgeseg.report.labeled_sheet import Tile

app = typer.Typer()
log = logging.getLogger(__name__)
LEAKS_SHOWN = 5
AUGMENTED = 3  # pictures beside each frame
DatasetFolder = Annotated[
    Path, typer.Argument(metavar="DATASET", help="Dataset: ROOT/{train,val,test}/{images,masks}.", show_default=False)
]


@datasets.command("stats", epilog="Example: edgeseg data stats dataset --json stats.json")
def stats(dataset: DatasetFolder, json_to: options.Json = None) -> None:
    """Show a dataset's frame sizes, channel mean and deviation, class frequencies and the class weights they suggest.

    For dataset owners, before a recipe is written. The weights are median frequency balancing (Eigen and Fergus 2015).
    """
    from edgeseg.data.stats import dataset_stats

    with progress("frames") as update:
        result = dataset_stats(dataset, update)
    shown_on = results(json_to)
    for name, split in result.splits.items():
        shown = table(f"{name}: {split.frames} frames", "class", "pixels %", "frames", "weight")
        for label, row in split.classes.items():
            shown.add_row(label, percent(row.share), str(row.frames), f"{row.weight:.2f}" if row.pixels else "-")
        shown_on.print(shown)
        sizes = ", ".join(f"{count} of {size}" for size, count in list(split.sizes.items())[:5])
        more = f", and {len(split.sizes) - 5} other sizes" if len(split.sizes) > 5 else ""
        shown_on.print(f"  sizes: {sizes}{more}; ignored pixels: {percent(split.ignored)} %")
        shown_on.print(f"  mean (RGB, 0..1): {_three(split.mean)}   std: {_three(split.std)}\n")
    for line in result.datasheet.lines() if result.datasheet else ():
        shown_on.print(line)
    emit(result, json_to)


def _three(values: tuple[float, float, float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


@datasets.command("split", epilog=r"Example: edgeseg data split dataset --out divided --group '(.*)_\d+'")
def split(
    dataset: DatasetFolder,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Dataset to write; new or empty.")] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Divide DATASET itself instead.")] = False,
    shares: Annotated[
        str, typer.Option(help="Of train, val and test; or of train and val, and test stays as it is.")
    ] = "0.8,0.1,0.1",
    folds: Annotated[
        int, typer.Option(help="Write OUT/fold1 and so on, each with another part as val; test stays as it is.", min=0)
    ] = 0,
    group: Annotated[
        str, typer.Option(metavar="REGEX", help="Frames whose names match alike (in parentheses) stay together.")
    ] = "",
    group_file: Annotated[
        Path | None, typer.Option(help="CSV with a header: files in the first column, groups in another.")
    ] = None,
    group_column: Annotated[str, typer.Option(help="Column of --group-file [default: the second].")] = "",
    blocks: Annotated[
        int,
        typer.Option(
            help="Keep so many consecutive frames together [default: by the names, where they look like videos].", min=0
        ),
    ] = 0,
    copies: Annotated[
        str, typer.Option(help="Frames that look alike: join (keep them together), report, or ignore.")
    ] = "join",
    seed: Annotated[int, typer.Option(help="The same seed gives the same splits.", min=0)] = 0,
    link: Annotated[bool, typer.Option("--link", help="Hard links instead of copies, where the disk allows.")] = False,
    json_to: options.Json = None,
) -> None:
    """Divide the frames of a dataset anew into train, val and test, or into folds.

    For dataset owners. Frames of one group (a scene, a sequence, a site) never are in two splits, nor are frames that
    look alike; every split gets its share of every class. Exits 1 if frames in two splits look alike all the same,
    because --copies is report, or one of them is in a test split that stays.
    """
    from edgeseg.data.copies import near_copies
    from edgeseg.data.splitting import COPIES, Plan, split_dataset

    if (out is None) == (not in_place):
        raise OptionError(
            "Both --out and --in-place are given." if out else "Neither --out nor --in-place is given.",
            "Give --out FOLDER for a new dataset, or --in-place to divide this one.",
        )
    if sum((bool(group), bool(group_file), bool(blocks))) > 1:
        raise OptionError("More than one of --group, --group-file and --blocks is given.", "Give one of them.")
    if group_column and not group_file:
        raise OptionError("--group-column is for --group-file.", "Give both.")
    if folds == 1:
        raise OptionError("--folds is 1.", "Expected at least 2.")
    if copies not in COPIES:
        raise unknown("value of --copies", copies, COPIES)
    plan = Plan(_numbers(shares), folds, group, group_file, group_column, blocks, seed, copies, link)
    finder = None if copies == "ignore" else near_copies
    with progress("frames") as update:
        result = split_dataset(dataset, out or dataset, plan, finder, update)
    _show_split(result, json_to)
    wrote(out or dataset)
    emit(result, json_to)
    raise typer.Exit(1 if result.leaks else 0)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"--shares is {text!r}.", "Expected numbers with commas, like 0.8,0.1,0.1.") from None


def _show_split(result: SplitResult, json_to: str | None) -> None:
    splits = {name: p for name, p in result.splits.items() if "/" not in name or name.endswith("/val")}  # of folds
    shown = table(f"{result.frames} frames in {result.groups} groups ({result.grouped_by})", "class", *splits)
    for label in next(iter(splits.values())).classes:
        rows = [part.classes[label] for part in splits.values()]
        shown.add_row(label, *(f"{row.frames} ({percent(row.share)} %)" for row in rows))
    shown.add_row("frames", *(str(part.frames) for part in splits.values()))
    results(json_to).print(shown)
    if result.copies:
        log.info("%d pairs of frames look alike", result.copies)
    for name, part in result.splits.items():
        if absent := [c for c, row in part.classes.items() if not row.frames]:
            log.warning("%s has no frame with %s", name, ", ".join(absent))
    for leak in result.leaks[:LEAKS_SHOWN]:
        log.warning("%s", leak)
    if len(result.leaks) > LEAKS_SHOWN:
        log.warning("and %d more pairs in two splits", len(result.leaks) - LEAKS_SHOWN)


@datasets.command("shard", epilog="Example: edgeseg data shard dataset --out shards --size 256M")
def shard(
    dataset: DatasetFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; must not exist.", show_default=False)],
    size: Annotated[str, typer.Option(metavar="BYTES", help="Of a shard at most, with K, M or G.")] = "256M",
    json_to: options.Json = None,
) -> None:
    """Write a dataset as tar shards with an index, in the layout of WebDataset.

    For dataset owners whose files are too many for a disk or a network to serve one by one. Recipes, train, eval, gate
    and data stats read the shards in place of the dataset, with the same results. An interrupted run continues.
    """
    from edgeseg.data.sharding import write_shards

    with resumable(), progress("frames") as update:
        result = write_shards(dataset, out, _bytes(size), update)
    if result.kept:
        log.info("%d shards were there from an interrupted run", result.kept)
    counts = ", ".join(f"{count} {split}" for split, count in result.splits.items())
    results(json_to).print(f"{result.frames} frames ({counts}) in {result.shards} shards, {result.size / 1e6:.1f} MB")
    wrote(out)
    emit(result, json_to)


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12})([KMG]?)B?", text.strip().upper())
    if not match:
        raise OptionError(f"--size {text!r} is no size.", "Expected bytes, like 256M or 1G.")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]


@datasets.command("show", epilog="Example: edgeseg data show dataset --class pedestrian --out pedestrians.jpg")
def show(
    dataset: DatasetFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture to write (.jpg, .png).")] = Path("sheet.jpg"),
    split_name: Annotated[str, typer.Option("--split", help="Split: train, val or test.")] = "train",
    class_name: Annotated[str, typer.Option("--class", help="Only frames that hold this class.")] = "",
    count: Annotated[int, typer.Option(help="How many frames, evenly spaced.", min=1, max=200)] = 24,
    augment: Annotated[
        Path | None, typer.Option(metavar="RECIPE", help="Also each frame as training augments it, by this recipe.")
    ] = None,
    role: Annotated[str, typer.Option(help="Whose augmentation: teacher or student.")] = "student",
    width: Annotated[int, typer.Option(help="Pixels of each frame in the picture.", min=32, max=2048)] = 320,
) -> None:
    """Draw frames of a dataset with their labels in color and a legend; ignored pixels are striped.

    For dataset owners: to see what a net will learn from, before it does.
    """
    from edgeseg.data.dataset import Dataset
    from edgeseg.data.labelmap import IGNORE
    from edgeseg.data.stats import frames_with_class
    from edgeseg.images import write_image
    from edgeseg.report.labeled_sheet import Tile, labeled_sheet

    part = Dataset.open(dataset, split_name)
    if class_name:
        with progress("masks") as update:
            found = frames_with_class(part, class_name, update)
        if not found:
            raise OptionError(f"No frame of {dataset} {split_name} holds {class_name!r}.", "Try another --split.")
    else:
        found = list(range(len(part)))
    count = min(count, len(found))
    chosen = [found[round(i * (len(found) - 1) / max(1, count - 1))] for i in range(count)]
    classes = part.classes
    if augment:
        tiles = [tile for i in chosen for tile in _augmented(part, augment, role, i)]
        classes = dataclasses.replace(classes, ignore_index=IGNORE)
    else:
        tiles = [Tile(part.images[i].stem, *part[i]) for i in chosen]
    write_image(out, labeled_sheet(tiles, classes, width, AUGMENTED + 1 if augment else 4))
    holding = f" with {class_name}" if class_name else ""
    results().print(f"{len(chosen)} of {len(found)} frames of {split_name}{holding}")
    wrote(out)


def _augmented(part: Dataset, recipe: Path, role: str, index: int) -> list[Tile]:
    """A frame, and what training makes of it in its first epochs."""
    from edgeseg.data.labelmap import IGNORE
    from edgeseg.recipe import Recipe
    from edgeseg.report.labeled_sheet import Tile
    from edgeseg.training.preview import augmented

    loaded = Recipe.load(recipe)
    if role not in ("teacher", "student"):
        raise unknown("role", role, ("teacher", "student"))
    settings = loaded.teacher if role == "teacher" else loaded.student
    pictures = augmented(part, loaded, settings, index, AUGMENTED)
    tiles = [Tile(f"epoch {epoch}", *picture) for epoch, picture in enumerate(pictures, 1)]
    frame, mask = part[index]
    mask[mask == part.classes.ignore_index] = IGNORE
    return [Tile(part.images[index].stem, frame, mask), *tiles]
