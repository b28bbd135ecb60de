"""Drift: the statistics of the frames that a bundle was made for, and what has changed on a stream since."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeseg.records import Record
from edgeseg.results.common import BundleIdentity, Picture

Row = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ReferenceStatistics(Record):
    """Statistics of `frames` frames that are as they should be. `rows`: those of each frame, in the order of `names`.

    `sequence`: the frames follow each other, as those of a camera; else they are single pictures. `picture`: the most
    typical of them, a JPEG in base64; "" where it may not be passed on.
    """

    KIND: ClassVar[str] = "reference"
    HINT: ClassVar[str] = "Make it again: edgeseg drift BUNDLE --reference FRAMES --out FILE."

    names: tuple[str, ...]
    rows: tuple[Row, ...]
    classes: tuple[str, ...]
    sequence: bool = False
    picture: str = ""

    @property
    def frames(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A change. `frame`: the one at which it was certain, `since`: the one at which its evidence began. `value`: the
    mean of the latest block; `low` and `high`: the range of the reference (areas are square roots of shares). `bound`:
    had nothing changed, an alarm like this would come once in that many frames or less often. `picture`: then and now,
    "" if none was written."""

    frame: int
    since: int
    statistic: str
    value: float
    low: float
    high: float
    bound: float
    what: str
    picture: str = ""


@dataclass(frozen=True)
class DriftState:
    """A stream at this moment: the score of each statistic, 1 where it is out of its range; alarms so far, by
    statistic."""

    scores: dict[str, float]
    alarms: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class DriftResult(Record):
    """`scores`: of each statistic at the end, 1 where it raises an alarm. `bound`: frames between two false alarms at
    least, on average. `block`: frames of the latest block. `reference`: its frames. `cost_ms`: mean time that watching
    took per frame, `frame_ms`: that the model took."""

    KIND: ClassVar[str] = "drift"

    frames: int
    fps: float | None
    alarms: tuple[Alarm, ...]
    scores: dict[str, float]
    bound: float
    block: int
    reference: int
    cost_ms: float | None = None
    frame_ms: float | None = None
    pictures: tuple[Picture, ...] = ()
    bundle: BundleIdentity | None = None
