"""Export: a dataset becomes labels in a format of other tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edgeseg.data import formats
from edgeseg.data.dataset import Classes, Dataset, open_splits
from edgeseg.data.datasheet import carry_datasheet
from edgeseg.data.formats import Frame
from edgeseg.data.labelmap import IGNORE, LabelMap
from edgeseg.errors import FileError
from edgeseg.files import replacing, write_bytes
from edgeseg.images import Image
from edgeseg.records import Record


@dataclass(frozen=True, kw_only=True)
class ExportResult(Record):
    """`frames`: written, of each split. `losses`: what the dataset holds and the format cannot."""

    KIND = "export"

    format: str
    classes: tuple[str, ...]
    frames: int
    splits: dict[str, int]
    losses: tuple[str, ...]


def export_dataset(
    root: Path,
    format_name: str,
    out: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ExportResult:
    """Write the dataset `root` into the folder `out`, which must be new or empty; nothing is left when it fails.

    OptionError for a format that cannot be written, FileError for a dataset that cannot be read.
    """
    module = formats.get_writer(format_name)
    parts = open_splits(root)
    total = sum(map(len, parts))
    with_objects = 0

    def frames() -> Iterator[Frame]:
        nonlocal with_objects
        done = 0
        for part in parts:
            for index in range(len(part)):
                labels = _label_map(part, index)
                with_objects += labels.instances is not None
                with _image_file(part, index) as image:
                    yield Frame(image.stem, part.split, image, labels)
                done += 1
                progress(done, total)

    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FileError(f"{out} exists and is not empty.", "Choose another output folder, or remove it.")
    with replacing(out, "no folder has this") as work:
        losses = tuple(module.write(frames(), _with_distinct_colors(parts[0].classes), work))
        carry_datasheet(root, work)
    if with_objects and module.OBJECTS == formats.NONE:
        losses += (f"frames whose objects of one class are not told apart any more: {with_objects}",)
    if module.OBJECTS == formats.SHAPES:
        losses += ("everything is an object: what belongs to none becomes one for each class of a frame",)
    return ExportResult(
        format=format_name,
        classes=parts[0].classes.names,
        frames=total,
        splits={part.split: len(part) for part in parts},
        losses=losses,
    )


@contextmanager
def _image_file(part: Dataset, index: int) -> Iterator[Path]:
    """A frame's image as a file; of shards, one that is there for the time being."""
    if not part.shards:
        yield part.images[index]
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / part.images[index].name
        write_bytes(path, part.read("images", index), durable=False)
        yield path


def _label_map(part: Dataset, index: int) -> LabelMap:
    """A frame's labels, with IGNORE for pixels to ignore, whatever their id in the dataset."""
    _, mask = part[index]
    ignore = part.classes.ignore_index
    classes: Image = mask if ignore in (None, IGNORE) else np.where(mask == ignore, np.uint8(IGNORE), mask)
    return LabelMap(classes, part.instances(index))


def _with_distinct_colors(classes: Classes) -> Classes:
    """Colors of classes that have none of their own are moved to one that is free."""
    used: set[tuple[int, int, int]] = set()
    palette = []
    for r, g, b in classes.palette:
        code = r << 16 | g << 8 | b
        while (color := (code >> 16, code >> 8 & 255, code & 255)) in used:
            code = (code + 0x2F4F6F) % (1 << 24)
        used.add(color)
        palette.append(color)
    return Classes(classes.names, tuple(palette), IGNORE)
