"""Evaluate a bundle on a labelled dataset, through the Segmenter that ships."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np

from edgeseg.bench.measure import percentiles
from edgeseg.data.dataset import Dataset
from edgeseg.data.images import Image
from edgeseg.errors import OptionError
from edgeseg.evaluation.metrics import Counts
from edgeseg.segmenter import Frame, Segmenter

Progress = Callable[[int, int], None]


def evaluate(segmenter: Segmenter, dataset: Dataset, progress: Progress | None = None) -> dict[str, Any]:
    """Metrics over the whole split. The class map is compared at the label's size (nearest neighbour).

    `latency_ms` is resize + infer + mask of one frame at a time when the segmenter was opened in latency mode.
    Raises OptionError when the dataset's class list is not the model's.
    """
    if dataset.classes.names != segmenter.spec.classes:
        raise OptionError(
            f"The model has classes {', '.join(segmenter.spec.classes)}; the dataset {', '.join(dataset.classes.names)}.",
            "Evaluate on data with the same class list in the same order.",
        )
    counts = Counts(len(dataset.classes.names), dataset.classes.ignore_index)
    labels: list[Image] = []
    seconds: list[float] = []

    def frames() -> Iterator[Frame]:
        for i in range(len(dataset)):
            image, label = dataset[i]
            labels.append(label)
            yield Frame(image, i)

    for done, result in enumerate(segmenter.stream(frames()), 1):
        label = labels[result.frame.index]
        counts.add(label, fit(result.classmap, *label.shape))
        seconds.append(sum(result.times.values()))
        if progress:
            progress(done, len(dataset))
    latency = percentiles(seconds)
    return {
        **counts.metrics(dataset.classes.names),
        "frames": len(dataset),
        "latency_ms": latency,
        "fps": 1e3 * len(seconds) / (1e3 * sum(seconds)),
        "confusion": counts.confusion.tolist(),
    }


def fit(classmap: Image, height: int, width: int) -> Image:
    """A class map at another size, nearest neighbour."""
    if classmap.shape == (height, width):
        return classmap
    return np.asarray(cv2.resize(classmap, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
