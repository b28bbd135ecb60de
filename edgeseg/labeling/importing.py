"""Corrected labels come back: checked against the collection that they were exported from, frame by frame.

The images are the collection's own; only masks are taken from outside. A frame that does not fit is left out and named,
the rest is imported.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data import archive, formats
from edgeseg.data.dataset import Classes, Dataset, open_files
from edgeseg.data.formats import LabeledFrame
from edgeseg.data.labelmap import BACKGROUND, IGNORE, LabelMap
from edgeseg.data.store import check_image
from edgeseg.errors import EdgesegError, FileError, MissingPackage, did_you_mean
from edgeseg.files import replacing, write_bytes
from edgeseg.images import Image, read_mask, write_image
from edgeseg.labeling import records
from edgeseg.labeling.compare import Comparison
from edgeseg.results.labeling import LabelImport, LabelProblem

Collected = dict[str, tuple[Dataset, Path]]  # name -> its split and image


def import_labels(
    source: Path,
    collection: Path,
    out: Path,
    format_name: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LabelImport:
    """Write the dataset `out`: the frames of `collection` whose corrected labels are in `source` (a file, folder or
    archive in any format of `edgeseg data import`).

    FileError where no frame at all can be imported; nothing is left behind then.
    """
    parts = open_files(collection, "label")
    collected: Collected = {image.stem: (part, image) for part in parts for image in part.images}
    classes = parts[0].classes
    with archive.opened(source, out) as folder, replacing(out, "classes.txt", durable=False) as work:
        name, root = formats.detect(folder) if format_name == "auto" else (format_name, folder)
        labels = formats.get(name).read(root)
        table = _table(labels.classes, classes)
        write_bytes(work / "classes.txt", Classes(classes.names, classes.palette, IGNORE).text().encode())
        records.carry(collection, work)
        comparison = Comparison(classes, "model", "corrected")
        problems: list[LabelProblem] = []
        done: set[str] = set()
        losses: Counter[str] = Counter()
        frames = list(labels.frames)
        for number, frame in enumerate(frames, 1):
            short = Path(frame.name).name
            try:
                if short in done:
                    raise FileError("It is there twice.", "")
                losses += _take(short, frame, collected, table, labels.classes, work, comparison)
                done.add(short)
            except EdgesegError as error:
                if isinstance(error, MissingPackage):
                    raise
                what = error.what.replace(str(folder), str(source))
                problems.append(LabelProblem(short, what))
            progress(number, len(frames))
        if not done:
            first = f"{problems[0].frame}: {problems[0].what}" if problems else "there is none"
            raise FileError(
                f"No corrected frame can be imported: {first}", f"Are these labels of frames in {collection}?"
            )
    missing = sorted(collected.keys() - done - {problem.frame for problem in problems})
    return LabelImport(
        format=name,
        frames=len(done),
        problems=tuple(problems),
        missing=tuple(missing),
        losses=(*labels.losses, *(f"{what}: {count}" for what, count in sorted(losses.items()))),
        disagreement=comparison.result(only_first=missing),
    )


def _table(theirs: Classes, ours: Classes) -> NDArray[np.int16]:
    """[256]: our id of each of their classes; -1 for a class that we do not have, IGNORE for what never counts."""
    table = np.full(256, -1, np.int16)
    names = {name.casefold(): i for i, name in enumerate(ours.names)}
    for i, name in enumerate(theirs.names):
        table[i] = names.get(name.casefold(), IGNORE if name == BACKGROUND else -1)
    table[IGNORE] = IGNORE
    return table


def _take(
    name: str,
    frame: LabeledFrame,
    collected: Collected,
    table: NDArray[np.int16],
    theirs: Classes,
    work: Path,
    comparison: Comparison,
) -> Counter[str]:
    """Write one frame; FileError that says why it does not fit."""
    if name not in collected:
        raise FileError("No such frame was collected.", did_you_mean(name, list(collected)[:1000]))
    part, image = collected[name]
    if not image.is_file():
        raise FileError(f"Its image {image} was removed meanwhile.", "Restore it, or collect again.")
    header = check_image(image)
    drawn = frame.mask()
    labels = drawn if isinstance(drawn, LabelMap) else LabelMap(drawn)
    if labels.classes.shape != (header.height, header.width):
        height, width = labels.classes.shape
        raise FileError(
            f"Its labels are for {width}x{height}, the frame is {header.width}x{header.height}.",
            "Label the exported image, not a copy of another size.",
        )
    mask = _translated(labels.classes, table, theirs)
    before = read_mask(part.root / part.split / "masks" / f"{name}.png")
    place = work / part.split / "images" / image.name
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image, place)
    write_image(work / part.split / "masks" / f"{name}.png", mask)
    comparison.add(name, before, mask)
    return labels.losses


def _translated(mask: Image, table: NDArray[np.int16], theirs: Classes) -> Image:
    ids = table[mask]
    if (ids < 0).any():
        unknown = int(mask[ids < 0].flat[0])
        name = theirs.names[unknown] if unknown < len(theirs.names) else f"id {unknown}"
        raise FileError(
            f"It has the class {name!r}, which the collection does not have.", "Rename it, or leave it out."
        )
    return ids.astype(np.uint8)
