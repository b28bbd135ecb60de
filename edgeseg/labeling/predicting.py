"""Better pre-labels: the class maps of a larger network in place of those of the one that collected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeseg.bundle import Bundle
from edgeseg.data.dataset import open_files
from edgeseg.errors import FileError
from edgeseg.evaluation.evaluate import require_classes
from edgeseg.files import write_bytes
from edgeseg.images import palette_png
from edgeseg.labeling import records
from edgeseg.runtime import PROXY, open_segmenter


def predict_labels(collection: Path, model: Path, on_progress: Callable[[int, int], None] | None = None) -> int:
    """Write what the bundle `model` says of every collected frame as its pre-label; returns how many there are.

    FileError for a dataset that was not collected, whose masks may be the work of people; OptionError for a bundle of
    other classes.
    """
    collected = records.read(collection)
    if not collected:
        raise FileError(
            f"{collection} was not written by edgeseg collect: its masks may be the work of people.",
            "Name a folder with collected.jsonl.",
        )
    parts = open_files(collection, "label")
    with open_segmenter(Bundle.load(model), "throughput", backend=PROXY) as segmenter:
        for part in parts:
            require_classes(segmenter.spec, part)
        segmenter.keep_detail()
        total, done = sum(len(part) for part in parts), 0
        for part in parts:
            for i, image in enumerate(part.images):
                mask = segmenter(part[i][0]).at_frame_size()
                path = part.root / part.split / "masks" / f"{image.stem}.png"
                write_bytes(path, palette_png(mask, part.classes.palette), durable=False)
                done += 1
                if on_progress:
                    on_progress(done, total)
    return total
