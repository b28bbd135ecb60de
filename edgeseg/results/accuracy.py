"""Accuracy in the field: labeled frames that came back, and what they say of each camera over time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from edgeseg.records import Record
from edgeseg.results.common import BundleIdentity, Interval, Picture
from edgeseg.results.labeling import LabelProblem


@dataclass(frozen=True)
class ScoredFrame:
    """A labeled frame and what the bundle made of it: a line of a history. `image`, `labels`: sha256 of the two files.
    `time`: Unix seconds when it was collected, None if unknown. `random`: it was drawn at random, see `edgeseg
    collect`. `why`: the reasons for which it was kept. `confusion`: [truth, prediction, pixels], without zeros."""

    frame: str
    image: str
    labels: str
    camera: str
    time: float | None
    random: bool
    why: tuple[str, ...]
    confusion: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class SampleScore:
    """Accuracy on some frames, as shares of 1, with 95 % intervals. `blocks`: frames of one camera at nearly the same
    time are one, and the intervals go by these. None where too few are known, or where a class neither occurs nor is
    predicted."""

    frames: int
    blocks: int
    miou: float | None
    interval: Interval | None
    iou: dict[str, float | None]
    iou_interval: dict[str, Interval | None]


@dataclass(frozen=True)
class CameraAccuracy:
    """One camera. `all`: on every labeled frame, `random`: on those that were drawn at random, which estimate how good
    the bundle is on all that the camera sees; None where there are none. `verdict`: pass, fail or undecided, by the
    limit; "" without one. `text`: the verdict in words."""

    camera: str
    all: SampleScore
    random: SampleScore | None
    verdict: str = ""
    text: str = ""


@dataclass(frozen=True)
class WindowAccuracy:
    """A camera in one day or week (UTC). `begin`: its first day."""

    camera: str
    begin: str
    all: SampleScore
    random: SampleScore | None


@dataclass(frozen=True, kw_only=True)
class AccuracyResult(Record):
    """`new`: frames that were scored this time, `replaced`: of them, those whose labels were corrected since. `known`:
    all that the history has. `missing`: frames that were drawn at random and have not come back labeled. `window`: day
    or week. `all`, `random`, `cameras`: of the `recent` days before the newest frame of each camera; `windows`: of all
    that is known. `limit`: the accepted mIoU, a share of 1, None where there is none; `limit_from`: what says so.
    `verdict`: the worst of a camera's. `notes`: what to mind when reading the figures."""

    KIND: ClassVar[str] = "accuracy"

    bundle: BundleIdentity
    new: int
    replaced: int
    known: int
    missing: int
    window: str
    recent: float
    all: SampleScore
    random: SampleScore | None
    cameras: tuple[CameraAccuracy, ...]
    windows: tuple[WindowAccuracy, ...]
    limit: float | None = None
    limit_from: str = ""
    verdict: str = ""
    notes: tuple[str, ...] = ()
    problems: tuple[LabelProblem, ...] = ()
    backend: str = ""
    pictures: tuple[Picture, ...] = field(default=())
