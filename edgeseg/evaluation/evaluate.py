"""Evaluate a bundle on a labeled dataset, through the Segmenter that ships."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np

from edgeseg.data.dataset import Classes, Dataset
from edgeseg.data.mapping import ClassMatch
from edgeseg.data.slices import FrameSlice
from edgeseg.errors import OptionError
from edgeseg.evaluation import metrics, statistics
from edgeseg.evaluation.augmented import Augmented
from edgeseg.evaluation.errors import Errors
from edgeseg.evaluation.metrics import RIGHT, TRUTH, Counts, Table
from edgeseg.fit import OUTSIDE, unfit
from edgeseg.images import Image
from edgeseg.result import Frame, Result
from edgeseg.results.common import DataIdentity
from edgeseg.results.evaluation import EvalResult, SliceScores, WorstFrame
from edgeseg.segmenter import Segmenter
from edgeseg.spec import Spec
from edgeseg.tiling import Tiled
from edgeseg.timing import Percentiles

log = logging.getLogger(__name__)
WORST = 4  # frames named in the result
Progress = Callable[[int, int], None]


def evaluate(
    segmenter: Segmenter | Augmented | Tiled,
    dataset: Dataset,
    progress: Progress | None = None,
    study: bool = False,
    slices: Sequence[FrameSlice] = (),
    match: ClassMatch | None = None,
) -> EvalResult:
    """Metrics over the whole split. The class map is compared at the label's size (nearest neighbor).

    `interval`: 95 % bootstrap intervals over frames of miou, boundary_f1 and every class's IoU. `latency_ms` and `fps`
    are of resize + infer + mask; they mean one frame at a time where the segmenter was opened in latency mode.
    `study` adds `errors` (errors.py): by distance to edges, by size of objects, by brightness;
    `slices` the scores of those frames by themselves (data/slices.py).
    `match`: the classes that both are compared by (data/mapping.py); without it OptionError when the dataset's class
    list is not the model's.
    """
    match = match or same_classes(segmenter.spec, dataset)
    names = match.classes.names
    errors = Errors(len(names), match.classes.ignore_index) if study else None
    counts, seconds = count(segmenter, dataset, progress, errors, match)
    tables = counts.tables()
    per_frame = tables[..., RIGHT].sum(1) / np.maximum(1, tables[..., TRUTH].sum(1))
    return EvalResult(
        **vars(counts.metrics(names)),
        interval=statistics.intervals(tables, names),
        frames=len(dataset),
        latency_ms=Percentiles.of(seconds),
        fps=len(seconds) / sum(seconds),
        worst=tuple(WorstFrame(int(i), float(per_frame[i])) for i in np.argsort(per_frame)[:WORST]),
        confusion=tuple(map(tuple, counts.confusion.tolist())),
        errors=errors.summary(tables, names) if errors else None,
        data=DataIdentity(dataset.root.name, dataset.split),
        slices=tuple(slice_scores(part, tables, names) for part in slices),
    )


def slice_scores(part: FrameSlice, tables: Table, names: tuple[str, ...]) -> SliceScores:
    """The scores of some of the frames whose count tables [N, C, 7] are given."""
    own = tables[list(part.frames)]
    total = own.sum(0)
    iou = [None if np.isnan(value) else float(value) for value in metrics.scores(total)["iou"]]
    mean_iou = float(statistics.miou(total))
    return SliceScores(
        slice=part.name,
        frames=len(own),
        miou=None if np.isnan(mean_iou) else mean_iou,
        pixel_accuracy=int(total[:, RIGHT].sum()) / max(1, int(total[:, TRUTH].sum())),
        interval=statistics.intervals(own, names).miou,
        iou=dict(zip(names, iou)),
    )


def count(
    segmenter: Segmenter | Augmented | Tiled,
    dataset: Dataset,
    progress: Progress | None = None,
    errors: Errors | None = None,
    match: ClassMatch | None = None,
) -> tuple[Counts, list[float]]:
    """The counts of every frame, in the dataset's order, and the seconds each frame took. `errors` sees them too."""
    match = match or same_classes(segmenter.spec, dataset)
    ignore = match.classes.ignore_index
    counts = Counts(len(match.classes.names), ignore)
    labels: dict[int, Image] = {}
    seconds: list[float] = []

    def frames() -> Iterator[Frame]:
        for i in range(len(dataset)):
            image, label = dataset[i]
            labels[i] = np.asarray(cv2.LUT(label, match.labels), np.uint8)
            yield Frame(image, i)

    ignored = 0
    for done, result in enumerate(segmenter.stream(frames()), 1):
        label = labels.pop(result.frame.index)
        label, classmap = at_label_size(result, label, result.spec or segmenter.spec, ignore)
        classmap = np.asarray(cv2.LUT(classmap, match.predictions), np.uint8)
        counts.add(label, classmap)
        ignored += int(np.count_nonzero(label == ignore))
        if errors:
            errors.add(result.frame.image, label, classmap)
        seconds.append(sum(result.times.values()))
        if progress:
            progress(done, len(dataset))
    _warn_of_absent_classes(counts, dataset, match.classes, ignored)
    return counts, seconds


def same_classes(spec: Spec, dataset: Dataset) -> ClassMatch:
    """Of a network that has the dataset's classes; OptionError for another."""
    require_classes(spec, dataset)
    as_it_is = np.arange(256, dtype=np.uint8)
    return ClassMatch(dataset.classes, as_it_is, as_it_is)


def require_classes(spec: Spec, dataset: Dataset) -> None:
    """OptionError when the dataset's class list is not the model's."""
    if dataset.classes.names != spec.classes:
        raise OptionError(
            f"The model's classes are {', '.join(spec.classes)}; the dataset's {', '.join(dataset.classes.names)}.",
            "Evaluate on data with the same classes in the same order, or say which is which: edgeseg eval --map FILE.",
        )


def at_label_size(result: Result, label: Image, spec: Spec, ignore_index: int | None) -> tuple[Image, Image]:
    """(label, class map) of the label's size (nearest neighbor); what the network does not see is not judged."""
    classmap = unfit(result.classmap, spec, *label.shape)
    if spec.fit == "crop":
        label = np.where(classmap == OUTSIDE, np.uint8(ignore_index or OUTSIDE), label)
    return label, classmap


def _warn_of_absent_classes(counts: Counts, dataset: Dataset, classes: Classes, ignored: int) -> None:
    """A class that no label holds although pixels are ignored often is one whose id the labels give as ignored."""
    absent = [name for name, pixels in zip(classes.names, counts.tables().sum(0)[:, TRUTH]) if not pixels]
    if absent and ignored:
        log.warning(
            "No label of %s %s holds %s, while %d pixels are ignored (id %s): are the ids of the masks right?",
            dataset.root, dataset.split, ", ".join(absent), ignored, classes.ignore_index,
        )  # fmt: skip
