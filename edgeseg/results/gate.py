"""GateResult: may a build ship?"""

from __future__ import annotations

from dataclasses import dataclass

from edgeseg.records import Record
from edgeseg.results.common import DataIdentity, Machine
from edgeseg.results.evaluation import SliceScores


@dataclass(frozen=True)
class Check:
    """`verdict` is pass, fail or undecided; `text` says it in words; figures in their own unit, None = undefined.

    `frames_needed`: how many frames would decide it.
    """

    name: str
    verdict: str
    text: str
    value: float | None
    limit: float
    low: float | None
    high: float | None
    frames_needed: int | None = None


@dataclass(frozen=True, kw_only=True)
class GateResult(Record):
    """`bundle`: the build's name; `against`: what it was compared with, if with anything. `backend`, `slices`: see
    EvalResult."""

    KIND = "gate"

    verdict: str
    bundle: str
    digest: str
    against: str | None
    data: DataIdentity
    checks: tuple[Check, ...]
    machine: Machine
    backend: str = ""
    slices: tuple[SliceScores, ...] = ()
