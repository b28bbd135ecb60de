"""PipelineResult: what every stage of a recipe gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeseg.records import Record
from edgeseg.results.common import Machine, Parity, Picture
from edgeseg.results.datasheet import Datasheet
from edgeseg.results.evaluation import ClassScores
from edgeseg.timing import Percentiles


@dataclass(frozen=True, kw_only=True)
class MeasuredBundle:
    """A bundle's size, stored accuracy and speed."""

    path: str
    name: str
    target: str
    precision: str
    bytes: int
    parity: Parity
    miou: float | None
    pixel_accuracy: float
    boundary_f1: float | None
    per_class: dict[str, ClassScores]
    fps: float
    latency_ms: Percentiles
    pure_fps: float
    stages_ms: dict[str, Percentiles]


@dataclass(frozen=True, kw_only=True)
class MeasuredStage(MeasuredBundle):
    """A stage's network, compiled in float32. `macs` of one frame; `seconds` of training."""

    stage: str
    macs: int
    params: int
    val_miou: float
    seconds: float


@dataclass(frozen=True)
class PipelineData:
    """`digests`: of the splits. `datasheet`: what the dataset's owner states about it."""

    test_frames: int
    digests: dict[str, str]
    datasheet: Datasheet | None = None


@dataclass(frozen=True)
class Int8Drop:
    """Points of mIoU that an INT8 bundle lost against the float32 one of its target, and how many it may lose."""

    name: str
    drop: float
    allowed: float
    ok: bool


@dataclass(frozen=True, kw_only=True)
class PipelineResult(Record):
    """`best`: the fastest bundle of the first target; its figures stand beside it. `recipe`: resolved, as plain values.
    `seconds`: of each stage."""

    KIND = "pipeline"

    name: str
    best: str
    miou: float | None
    pixel_accuracy: float
    latency_ms: Percentiles
    fps: float
    recipe: dict[str, Any]
    machine: Machine
    data: PipelineData
    calibration: dict[str, str | int]
    stages: tuple[MeasuredStage, ...]
    bundles: tuple[MeasuredBundle, ...]
    int8: tuple[Int8Drop, ...]
    seconds: dict[str, float | None]
    pictures: tuple[Picture, ...]
