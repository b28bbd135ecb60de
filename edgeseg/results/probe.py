"""ProbeResult: which of the common normalizations suits a network that does not say its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from edgeseg.records import Record


@dataclass(frozen=True, kw_only=True)
class ProbeRow:
    """One normalization, by name and as keys of the Spec, and the class maps that it gives.

    `confidence`: the mean probability of the winning class, 0..1. `stability`: how far class maps of the mirrored and
    of the darker frame agree with the frame's own, beyond chance (Cohen's kappa, at most 1; 0 where a map has one
    class). `classes`: how many classes the maps have, as the exponential of their entropy. `score`: the mean of
    confidence times stability over the frames.
    """

    name: str
    color: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    confidence: float
    stability: float
    classes: float
    score: float


@dataclass(frozen=True, kw_only=True)
class ProbeResult(Record):
    """`rows`: best first. `ahead`: on how many of the frames the first one scores higher than the second."""

    KIND: ClassVar[str] = "probe"
    HINT: ClassVar[str] = "Probe again: edgeseg compile MODEL --probe FRAMES"

    model: str
    frames: int
    ahead: int
    rows: tuple[ProbeRow, ...]

    @property
    def close(self) -> bool:
        """Whether the first is not clearly ahead: on less than three of four frames."""
        return 4 * self.ahead < 3 * self.frames
