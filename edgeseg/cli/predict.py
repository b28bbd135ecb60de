"""predict: images in, what is on them out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli import options
from edgeseg.cli.common import emit, progress, results, table, wrote
from edgeseg.errors import EdgesegError, FileError

if TYPE_CHECKING:
    from edgeseg.result import Result

app = typer.Typer()
log = logging.getLogger(__name__)
SHOWN = 5  # classes of an image in the table


@app.command(rich_help_panel=options.RUN, epilog="Example: edgeseg predict street-int8 photo.jpg --save out")
def predict(
    bundle: options.Bundle,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Images, or folders of images.", show_default=False)
    ],
    save: Annotated[
        Path | None, typer.Option(help="Folder for NAME.png (class ids) and NAME.jpg (drawn over the image).")
    ] = None,
    tile: options.Tile = False,
    overlap: options.TileOverlap = None,
    blend: options.TileBlend = "gaussian",
    json_to: options.Json = None,
) -> None:
    """Segment images: which classes, how much of each, and pictures of it.

    For a first look. Images that cannot be read are named, the others done; the exit status is then 2. Videos and
    cameras: edgeseg run.
    """
    from edgeseg.runtime import open_segmenter
    from edgeseg.tiling import tiled

    files = _files(images)
    names = _names(files)
    rows: list[dict[str, Any]] = []
    failed = 0
    shown = table("", "image", "size", "classes")
    with open_segmenter(bundle) as opened, progress("segmenting") as update:
        segmenter = tiled(opened, tile, overlap, blend)
        for done, path in enumerate(files, 1):
            try:
                result = segmenter(path)
            except EdgesegError as error:
                log.error("%s", error.what, extra={"hint": error.hint})
                failed += 1
                continue
            if save:
                result.save(save / f"{names[path]}.png")
                result.save(save / f"{names[path]}.jpg")
            rows.append({"file": str(path), **result.to_dict()})
            shown.add_row(str(path), *_described(result))
            update(done, len(files))
    results(json_to).print(shown)
    if save and rows:
        wrote(save)
    emit({"bundle": str(bundle), "failed": failed, "images": rows}, json_to)
    if failed:
        raise typer.Exit(2)


def _described(result: Result) -> tuple[str, str]:
    height, width = result.frame.image.shape[:2]
    largest = sorted(result.areas().items(), key=lambda item: -item[1])
    shares = ", ".join(f"{name} {share:.1%}" for name, share in largest[:SHOWN])
    more = len(largest) - SHOWN
    return f"{width}x{height}", f"{shares}{f' and {more} more' * (more > 0)}"


def _files(images: list[Path]) -> list[Path]:
    from edgeseg.images import list_images

    files = [file for path in images for file in (list_images(path) if path.is_dir() else [path])]
    return list(dict.fromkeys(files))


def _names(files: list[Path]) -> dict[Path, str]:
    """The name that each file's results get: its own, or with its folder where two have the same."""
    names: dict[Path, str] = {}
    for path in files:
        stem = path.stem if path.stem not in names.values() else f"{path.parent.name}-{path.stem}"
        if stem in names.values():
            raise FileError(f"Two images would be saved as {stem}: {path} is one.", "Segment them one after another.")
        names[path] = stem
    return names
