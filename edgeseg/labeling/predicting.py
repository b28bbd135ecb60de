"""Better pre-labels: the class maps of a larger network in place of those of the one that collected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeseg.bundle import Bundle
from edgeseg.data.dataset import Dataset, open_files
from edgeseg.data.frame_map import each_frame
from edgeseg.errors import EdgesegError, FileError
from edgeseg.evaluation.evaluate import require_classes
from edgeseg.files import write_bytes
from edgeseg.images import palette_png
from edgeseg.labeling import records
from edgeseg.runtime import PROXY, open_segmenter


def predict_labels(
    collection: Path, model: Path, on_progress: Callable[[int, int], None] | None = None, ray: str = ""
) -> int:
    """Write what the bundle `model` says of every collected frame as its pre-label; returns how many there are.

    `ray`: where frames are predicted, see frame_map; every worker opens the bundle.
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
    places = [(number, index) for number, part in enumerate(parts) for index in range(len(part))]
    with _Predictor(model, parts) as predictor:
        for done, error in enumerate(each_frame(predictor, places, ray), 1):
            if error:
                raise error
            if on_progress:
                on_progress(done, len(places))
    return len(places)


class _Predictor:
    """Writes the pre-label of one frame after another."""

    def __init__(self, model: Path, parts: list[Dataset], threads: int = 0) -> None:
        self.model, self.parts = model, parts
        self.segmenter = open_segmenter(Bundle.load(model), "throughput", backend=PROXY, threads=threads)
        self.segmenter.keep_detail()

    def __reduce__(self) -> tuple[type[_Predictor], tuple[Path, list[Dataset], int]]:
        """In another process the bundle is opened again, for one thread: Ray has a worker for every CPU."""
        return _Predictor, (self.model, self.parts, 1)

    def __enter__(self) -> _Predictor:
        try:
            for part in self.parts:
                require_classes(self.segmenter.spec, part)
        except EdgesegError:
            self.segmenter.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.segmenter.close()

    def __call__(self, place: tuple[int, int]) -> EdgesegError | None:
        part, index = self.parts[place[0]], place[1]
        try:
            mask = self.segmenter(part[index][0]).at_frame_size()
            path = part.root / part.split / "masks" / f"{part.images[index].stem}.png"
            write_bytes(path, palette_png(mask, part.classes.palette), durable=False)
        except EdgesegError as error:
            return error
        return None
