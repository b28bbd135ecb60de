"""Label errors: regions whose label a model holds for next to impossible.

After confident learning (Northcutt et al. 2021), by regions instead of pixels: of every connected region of one label
that the model contradicts, the mean negative logarithm of the probability it gives that label. Thin strips along
boundaries do not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.checks import CannotCheck, Check, Context, Sample
from edgeseg.data.dataset import Classes
from edgeseg.errors import OptionError
from edgeseg.fit import OUTSIDE, Placement, fit_frame, fit_labels, place
from edgeseg.images import Image
from edgeseg.results.check import Box, Finding
from edgeseg.runtime import PROXY, open_segmenter
from edgeseg.segmenter import FRAME, Segmenter

ERRORS = ()
THICKNESS = 1 / 90  # of the frame's height: what is thinner lies along a boundary
SMALLEST = 1 / 2000  # of the frame
LARGE = 1 / 50  # of the frame: from there on size says no more
LEAST = 1e-4  # probability that makes a label impossible
SUSPICIOUS = 0.4  # score of a region that is reported
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Region:
    """`area`: share of the frame. `box` in pixels of the maps that it was found in."""

    label: int
    predicted: int
    area: float
    score: float
    box: Box


class LabelErrors(Check):
    def __init__(self, context: Context, segmenter: Segmenter) -> None:
        self.segmenter, self.names = segmenter, context.classes.names
        ignore = context.classes.ignore_index
        self.ignore = OUTSIDE if ignore is None else ignore
        self.alone = Lock()  # the segmenter takes one frame at a time

    def close(self) -> None:
        self.segmenter.close()

    def look(self, sample: Sample) -> list[Finding]:
        return list(self._findings(sample))

    def _findings(self, sample: Sample) -> Iterator[Finding]:
        if not sample.fits or sample.labels is None or sample.pixels is None:
            return
        labels = fit_labels(sample.labels, self.segmenter.spec, self.ignore)
        placed = place(self.segmenter.spec, *sample.labels.shape)
        known = (labels < len(self.names)) & (labels != self.ignore)
        with self.alone:
            predicted, logits = predict(self.segmenter, sample.pixels)
        for region in suspicious(labels, known, predicted, softmax(logits)):
            x, y, w, h = box = _in_frame(region.box, placed)
            what = (
                f"Labeled {self.names[region.label]}; the model sees {self.names[region.predicted]}: "
                f"{100 * region.area:.1f} % of the frame, {w}x{h} pixels at {x}, {y}."
            )
            yield Finding(
                kind="label-error", file=sample.mask_name, what=what, split=sample.split, score=region.score,
                others=(sample.name,), box=box,
            )  # fmt: skip


def predict(segmenter: Segmenter, frame: Image) -> tuple[Image, Floats]:
    """The class map of the network's input, and the head's first output, as a rule the logits [C, h, w] at its
    stride."""
    fit_frame(frame, segmenter.spec, into=segmenter.engine.inputs(0)[FRAME])
    segmenter.engine.start(0)
    outputs = segmenter.engine.wait(0)
    return segmenter.head.decode(outputs).classmap, np.array(outputs[segmenter.head.outputs[0]], np.float32)


def softmax(logits: Floats) -> Floats:
    """Over the classes of [C, h, w]."""
    weights = np.exp(logits - logits.max(0))
    return np.asarray(weights / weights.sum(0), np.float32)


def suspicious(labels: Image, known: NDArray[np.bool_], predicted: Image, chances: Floats) -> Iterator[Region]:
    """Regions of `labels` [H, W], where they are `known`, that the class map `predicted` [H, W] and the class
    probabilities [C, h, w] contradict."""
    height, width = labels.shape
    size = max(3, round(height * THICKNESS))
    wrong = (known & (predicted != labels)).astype(np.uint8)
    opened = cv2.morphologyEx(wrong, cv2.MORPH_OPEN, np.ones((size, size), np.uint8)) > 0
    for class_id in np.unique(labels[opened]).tolist():
        here = (opened & (labels == class_id)).astype(np.uint8)
        chance = cv2.resize(chances[class_id], (width, height), interpolation=cv2.INTER_LINEAR)
        number, parts, stats, _ = cv2.connectedComponentsWithStats(here, connectivity=4, ltype=cv2.CV_32S)
        for i in range(1, number):
            x, y, w, h, pixels = (int(value) for value in stats[i])
            area = pixels / labels.size
            window = np.s_[y : y + h, x : x + w]
            inside = parts[window] == i
            if area < SMALLEST:
                continue
            surprise = float(
                np.log(chance[window][inside] + LEAST).mean() / np.log(LEAST)
            )  # 0: expected, 1: impossible
            score = max(0.0, surprise) ** 2 * min(1.0, area / LARGE) ** 0.25
            if score >= SUSPICIOUS:
                instead = int(np.bincount(predicted[window][inside]).argmax())
                yield Region(class_id, instead, area, min(1.0, score), (x, y, w, h))


def _in_frame(box: Box, placed: Placement) -> Box:
    """A box of the network's input in pixels of the frame."""
    seen, filled = placed.seen, placed.filled
    across, down = seen.width / filled.width, seen.height / filled.height
    x, y = seen.left + (box[0] - filled.left) * across, seen.top + (box[1] - filled.top) * down
    return round(x), round(y), max(1, round(box[2] * across)), max(1, round(box[3] * down))


def open(context: Context) -> Check:
    """Raises OptionError for a model of other classes."""
    if context.bundle is None:
        raise CannotCheck("it needs a model of these classes (--bundle BUNDLE)")
    one_thread = int(bool(context.ray))  # Ray has a worker for every CPU
    segmenter = open_segmenter(context.bundle, backend=PROXY, threads=one_thread)
    try:
        _require_scores(segmenter, context.classes)
    except BaseException:
        segmenter.close()
        raise
    return LabelErrors(context, segmenter)


def _require_scores(segmenter: Segmenter, classes: Classes) -> None:
    spec = segmenter.spec
    if spec.classes != classes.names:
        raise OptionError(
            f"The model's classes are {', '.join(spec.classes)}; the dataset's {', '.join(classes.names)}.",
            "Check labels with a model of the same classes in the same order.",
        )
    _, found = predict(segmenter, np.zeros((spec.height, spec.width, 3), np.uint8))
    if found.ndim != 3 or len(found) != len(classes.names):
        raise CannotCheck("the model gives no scores of each class, only a class map")
