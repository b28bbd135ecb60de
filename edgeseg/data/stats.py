"""Statistics of a split: frame sizes, channel mean and deviation, class frequencies and the weights they suggest.

Frames are read one at a time, so memory does not grow with the dataset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.dataset import Dataset, open_splits
from edgeseg.data.datasheet import read_datasheet
from edgeseg.errors import unknown
from edgeseg.images import Image
from edgeseg.records import Record
from edgeseg.results.datasheet import Datasheet

Progress = Callable[[int, int], None]
Three = tuple[float, float, float]


@dataclass(frozen=True)
class ClassFrequency:
    """`pixels` with this label, their `share` of all labeled pixels, `frames` that hold the class, and the suggested
    `weight` (see class_weights)."""

    pixels: int
    share: float
    frames: int
    weight: float


@dataclass(frozen=True)
class SplitStats:
    """`sizes`: frames of each WxH, the most frequent first. `mean`, `std`: of R, G and B on a 0..1 scale, over all
    pixels. `ignored`: share of the pixels that never count."""

    frames: int
    sizes: dict[str, int]
    mean: Three
    std: Three
    ignored: float
    classes: dict[str, ClassFrequency]


@dataclass(frozen=True, kw_only=True)
class StatsResult(Record):
    """The statistics of every split of the dataset `root`, and what its owner states about it."""

    KIND = "stats"

    root: str
    splits: dict[str, SplitStats]
    datasheet: Datasheet | None = None


def dataset_stats(root: Path, progress: Progress = lambda done, total: None) -> StatsResult:
    """Statistics of every split there is. FileError for a dataset that cannot be read, and the frame that cannot."""
    parts, datasheet = open_splits(root), read_datasheet(root)
    total, done = sum(map(len, parts)), 0
    splits = {}
    for part in parts:
        running = _Running(part)
        for index in range(len(part)):
            running.add(*part[index])
            done += 1
            progress(done, total)
        splits[part.split] = running.summary()
    return StatsResult(root=str(root), splits=splits, datasheet=datasheet)


def class_weights(pixels: Sequence[int], pixels_where_present: Sequence[int]) -> tuple[float, ...]:
    """Median frequency balancing (Eigen and Fergus 2015, section 6.3.2): the weight of class c is median(f) / f(c),
    where f(c) is its share of the labeled pixels of the frames that hold it. 1 for a class that never occurs.

    `pixels`: of each class. `pixels_where_present`: labeled pixels of the frames that hold each class.
    """
    counts, whole = np.array(pixels, float), np.array(pixels_where_present, float)
    present = counts > 0
    frequency = np.divide(counts, whole, out=np.ones_like(counts), where=present)
    middle = float(np.median(frequency[present])) if present.any() else 1.0
    return tuple(float(v) for v in np.where(present, middle / frequency, 1.0))


@dataclass
class _Running:
    """Sums over the frames of a split."""

    dataset: Dataset
    sizes: Counter[str] = field(default_factory=Counter)
    count: int = 0  # pixels of all frames
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))  # of R, G, B on a 0..1 scale
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    labels: NDArray[np.int64] = field(init=False)
    frames: NDArray[np.int64] = field(init=False)
    where_present: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        classes = len(self.dataset.classes.names)
        self.labels, self.frames, self.where_present = (np.zeros(classes, np.int64) for _ in range(3))

    def add(self, frame: Image, mask: Image) -> None:
        mean, std = (part.ravel()[::-1] / 255 for part in cv2.meanStdDev(frame))
        self.total += mean * mask.size
        self.squares += (std**2 + mean**2) * mask.size
        self.count += mask.size
        self.sizes[f"{frame.shape[1]}x{frame.shape[0]}"] += 1
        counts = label_counts(mask, self.dataset)
        self.labels += counts
        self.frames += counts > 0
        self.where_present += np.where(counts > 0, counts.sum(), 0)

    def summary(self) -> SplitStats:
        mean = self.total / self.count
        std = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0))
        labeled = int(self.labels.sum())
        weights = class_weights(self.labels.tolist(), self.where_present.tolist())
        rows = zip(self.dataset.classes.names, self.labels.tolist(), self.frames.tolist(), weights)
        return SplitStats(
            frames=len(self.dataset),
            sizes=dict(self.sizes.most_common()),
            mean=_three(mean),
            std=_three(std),
            ignored=1 - labeled / self.count,
            classes={n: ClassFrequency(p, p / max(1, labeled), f, round(w, 4)) for n, p, f, w in rows},
        )


def frames_with_class(dataset: Dataset, name: str, progress: Progress = lambda done, total: None) -> list[int]:
    """The indices of the frames that hold the class `name`; OptionError for a class that the dataset does not have."""
    if name not in dataset.classes.names:
        raise unknown("class", name, dataset.classes.names)
    class_id, found = dataset.classes.names.index(name), []
    for index in range(len(dataset)):
        if label_counts(dataset.mask(index), dataset)[class_id]:
            found.append(index)
        progress(index + 1, len(dataset))
    return found


def label_counts(mask: Image, dataset: Dataset) -> NDArray[np.int64]:
    """[C]: the pixels of each class in a mask of `dataset`; those to ignore are not counted."""
    counts = np.bincount(mask.ravel(), minlength=256)
    if dataset.classes.ignore_index is not None:
        counts[dataset.classes.ignore_index] = 0
    return counts[: len(dataset.classes.names)]


def _three(values: NDArray[np.float64]) -> Three:
    r, g, b = (round(float(v), 4) for v in values)
    return r, g, b
