"""EvalResult: a bundle's accuracy on a labeled dataset."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg.records import Record
from edgeseg.results.common import BundleIdentity, DataIdentity, Interval, Machine, Picture
from edgeseg.timing import Percentiles


@dataclass(frozen=True)
class ClassScores:
    """Shares of 1; None for a class that neither occurs nor is predicted. `pixels`: how many are labeled so."""

    iou: float | None
    accuracy: float | None
    dice: float | None
    boundary_f1: float | None
    pixels: int


@dataclass(frozen=True)
class Metrics:
    """Shares of 1. Means leave out classes that neither occur nor are predicted."""

    miou: float | None
    pixel_accuracy: float
    mean_accuracy: float | None
    dice: float | None
    boundary_f1: float | None
    per_class: dict[str, ClassScores]


@dataclass(frozen=True)
class Intervals:
    """Bootstrap intervals over frames, [low, high] as shares of 1; None where a class is undefined."""

    share: float
    miou: Interval | None
    boundary_f1: Interval | None
    iou: dict[str, Interval | None]


@dataclass(frozen=True)
class WorstFrame:
    index: int
    pixel_accuracy: float


@dataclass(frozen=True)
class EdgeBand:
    """Pixels up to `upto_px` pixels from the nearest edge between two labels (None: further), and the share right."""

    upto_px: float | None
    accuracy: float | None
    pixels: int


@dataclass(frozen=True)
class SizeBand:
    """Objects of up to `upto_area` of the frame, and the share that was found."""

    upto_area: float
    found: float | None
    objects: int


@dataclass(frozen=True)
class Slice:
    """Frames that have something in common, like their brightness."""

    slice: str
    frames: int
    miou: float | None
    pixel_accuracy: float


@dataclass(frozen=True)
class SliceScores(Slice):
    """A slice of slices.toml. `interval`: 95 % of miou, bootstrap over its frames. `iou`: of each class, None where it
    neither occurs nor is predicted."""

    interval: Interval | None
    iou: dict[str, float | None]


@dataclass(frozen=True)
class ErrorStudy:
    edges: tuple[EdgeBand, ...]
    objects: dict[str, tuple[SizeBand, ...]]
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class Averaging:
    """Evaluation over several enlargements, and with the mirrored frame."""

    scales: tuple[float, ...]
    flip: bool


@dataclass(frozen=True, kw_only=True)
class EvalResult(Metrics, Record):
    """`latency_ms` and `fps`: resize + infer + mask. `worst`: the frames with the fewest pixels right. `confusion`:
    pixels, [truth][prediction]. `data.root` is the folder's name. `backend`: what ran; "through BACKEND" where
    that was the target's proxy, whose speeds are not the device's. `slices`: those that --slices names. `class_map`:
    the file of --map, by which labels and network were compared."""

    KIND = "eval"

    interval: Intervals
    frames: int
    latency_ms: Percentiles
    fps: float
    worst: tuple[WorstFrame, ...]
    confusion: tuple[tuple[int, ...], ...]
    errors: ErrorStudy | None = None
    averaged: Averaging | None = None
    pictures: tuple[Picture, ...] = ()
    data: DataIdentity | None = None
    bundle: BundleIdentity | None = None
    machine: Machine | None = None
    backend: str = ""
    slices: tuple[SliceScores, ...] = ()
    class_map: str = ""
