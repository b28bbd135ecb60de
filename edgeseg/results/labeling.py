"""Labels that came back, and how far two labelings of the same frames agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeseg.records import Record


@dataclass(frozen=True)
class FrameAgreement:
    """`agreement`: share of the pixels that both label which have the same class; `changed`: the classes that lost and
    gained most, "A -> B"."""

    frame: str
    agreement: float
    changed: str = ""


@dataclass(frozen=True, kw_only=True)
class Disagreement(Record):
    """Two labelings of the same frames. `miou`, `iou`: intersection over union of the two, 0 to 1; None for a class
    that is in neither. `worst`: the frames that agree least. `only_first`, `only_second`: frames that one alone has."""

    KIND: ClassVar[str] = "disagreement"

    first: str
    second: str
    frames: int
    agreement: float | None
    miou: float | None
    iou: dict[str, float | None]
    worst: tuple[FrameAgreement, ...]
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelProblem:
    """A frame of the corrected labels that was left out, and why."""

    frame: str
    what: str


@dataclass(frozen=True, kw_only=True)
class LabelImport(Record):
    """`frames`: imported; `missing`: collected ones that did not come back; `losses`: what the format holds and a class
    map cannot. `disagreement`: between the model's labels and the corrected ones."""

    KIND: ClassVar[str] = "label-import"

    format: str
    frames: int
    problems: tuple[LabelProblem, ...]
    missing: tuple[str, ...]
    losses: tuple[str, ...]
    disagreement: Disagreement
