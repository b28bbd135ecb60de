"""ClipResult: accuracy, flicker and speed over the consecutive frames of a video."""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg.records import Record
from edgeseg.results.common import BundleIdentity, Drop, Machine


@dataclass(frozen=True)
class DistanceScores:
    """The frames that are so many `frames` after one that went through the network."""

    distance: int
    frames: int
    miou: float | None
    miou_without_reuse: float | None


@dataclass(frozen=True)
class ClipFrame:
    """`reused`: how many frames before this one went through the network, 0 where this one did. `pixel_accuracy`: a
    share of 1."""

    reused: int
    pixel_accuracy: float
    pixel_accuracy_without_reuse: float


@dataclass(frozen=True, kw_only=True)
class ClipResult(Record):
    """`miou`, `flicker` and `keyframes` (frames that went through the network) are shares of 1. `drop`: points of mIoU
    lost to every frame going through the network, with the 95 % interval over the frames, which is too narrow as far
    as neighbors are alike. `fps`: of the model's path alone, measured in turns with `fps_without_reuse`.
    `flicker`: the share of pixels whose class changes along the motion although the label's does not;
    `flicker_by_class` by what the label says. `agreement`: with the class maps without reuse. `estimated_drop`: what
    --reuse auto said itself. `reuse`: as it was asked for; `motion`: where it came from."""

    KIND = "clip"

    clip: str
    frames: int
    stabilized: bool
    miou: float | None
    miou_without_reuse: float | None
    drop: Drop
    agreement: float
    keyframes: float
    fps: float
    fps_without_reuse: float
    flicker: float
    flicker_without_reuse: float
    flicker_by_class: dict[str, float | None]
    by_distance: tuple[DistanceScores, ...]
    per_frame: tuple[ClipFrame, ...]
    estimated_drop: float | None = None
    reuse: str = ""
    motion: str = ""
    bundle: BundleIdentity | None = None
    machine: Machine | None = None
    backend: str = ""
