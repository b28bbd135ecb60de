"""Import: labels in any known format become a dataset that recipes and `edgeseg eval` read.

OUT/{train,val,test}/{images,masks} and OUT/classes.txt; images are copied as they are, masks become PNGs of class ids.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeseg.data import formats
from edgeseg.data.dataset import SPLITS, Dataset
from edgeseg.data.formats import LabeledFrame
from edgeseg.errors import EdgesegError, FileError
from edgeseg.files import replacing, write_bytes
from edgeseg.images import read_image, write_image
from edgeseg.records import Record

log = logging.getLogger(__name__)
SHARES = (0.8, 0.1, 0.1)  # of frames whose split nobody names


@dataclass(frozen=True)
class Problem:
    """A frame that was left out, and why."""

    file: str
    what: str


@dataclass(frozen=True, kw_only=True)
class ImportResult(Record):
    """`frames`: written, of each split. `losses`: what the format holds and a class map cannot."""

    KIND = "import"

    format: str
    classes: tuple[str, ...]
    frames: int
    splits: dict[str, int]
    losses: tuple[str, ...]
    problems: tuple[Problem, ...]


def import_dataset(
    source: Path,
    out: Path,
    format_name: str = "auto",
    strict: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ImportResult:
    """Write the dataset `out`; nothing is left behind when it fails.

    Frames whose split the format does not say are divided in the order of their names, 80 : 10 : 10, so that
    neighboring frames of a video stay together. A frame that cannot be read is left out and named in the result, or,
    with `strict`, is an error. FileError where nothing can be read or written.
    """
    name = formats.detect(source) if format_name == "auto" else format_name
    labels = formats.get(name).read(source)
    frames = _with_splits(sorted(labels.frames, key=lambda frame: (frame.split, frame.name)))
    problems: list[Problem] = []
    counts = dict.fromkeys(SPLITS, 0)
    with replacing(out, "classes.txt", durable=False) as work:
        write_bytes(work / "classes.txt", labels.classes.text().encode())
        for done, frame in enumerate(frames, 1):
            try:
                _write(frame, work / frame.split)
                counts[frame.split] += 1
            except EdgesegError as error:
                if strict:
                    raise
                problems.append(Problem(str(frame.image), error.what))
            progress(done, len(frames))
        if not any(counts.values()):
            first = problems[0].what if problems else "there is none"
            raise FileError(f"No frame of {source} can be imported: {first}", "Fix it and import again.")
        for split in (split for split, count in counts.items() if count):
            Dataset.open(work, split)
    return ImportResult(
        format=name,
        classes=labels.classes.names,
        frames=sum(counts.values()),
        splits=counts,
        losses=labels.losses,
        problems=tuple(problems),
    )


def _write(frame: LabeledFrame, folder: Path) -> None:
    mask, image = frame.mask(), read_image(frame.image)
    if image.shape[:2] != mask.shape:
        raise FileError(
            f"Image {frame.image} is {image.shape[1]}x{image.shape[0]}, its labels are for "
            f"{mask.shape[1]}x{mask.shape[0]}.",
            "Both must have the same size; export the labels again.",
        )
    target = folder / "images" / f"{frame.name}{frame.image.suffix.lower()}"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(frame.image, target)
    write_image(folder / "masks" / f"{frame.name}.png", mask)


def _with_splits(frames: Sequence[LabeledFrame]) -> list[LabeledFrame]:
    """Every frame with a split."""
    unnamed = [i for i, frame in enumerate(frames) if not frame.split]
    ends = np.round(np.cumsum(SHARES) * len(unnamed)).astype(int)
    split_of = {i: SPLITS[int(np.searchsorted(ends, place, side="right"))] for place, i in enumerate(unnamed)}
    return [LabeledFrame(f.name, f.image, f.mask, split_of[i]) if i in split_of else f for i, f in enumerate(frames)]
