"""What control and autotune measured: candidates, and the one that was chosen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgeseg.records import Record
from edgeseg.results.bench import Speed
from edgeseg.results.common import DataIdentity, Drop, Machine


@dataclass(frozen=True)
class LayerNoise:
    """A layer (node of the deploy graph), its operator, and the SQNR at the logits when it alone is INT8, in dB."""

    layer: str
    operator: str
    sqnr_db: float


@dataclass(frozen=True, kw_only=True)
class Candidate(Speed):
    """A bundle that was made and measured. `kept`: the layers excluded from INT8. `drop`: against the float model."""

    name: str
    miou: float
    drop: Drop
    kept: tuple[str, ...]
    bytes: int


@dataclass(frozen=True, kw_only=True)
class ControlCandidate(Candidate):
    """`k`: how many layers are excluded. `variant`: how INT8 was found, "" for plain INT8."""

    k: int
    variant: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class AutotuneCandidate(Candidate):
    """`size`: width, height. `counted`: the points of drop that the limit is held against."""

    model: str
    size: tuple[int, int]
    precision: str
    counted: float


@dataclass(frozen=True, kw_only=True)
class FloatReference(Speed):
    """The float bundle that drops are counted from."""

    precision: str
    miou: float


@dataclass(frozen=True, kw_only=True)
class ControlResult(Record):
    """`held`: whether the chosen bundle keeps within `max_drop` points. `stopped`: which budget ran out, if one
    did."""

    KIND = "control"

    bundle: str
    chosen: str
    kept: tuple[str, ...]
    stopped: str
    reference: FloatReference
    rows: tuple[ControlCandidate, ...]
    measured_by: str
    held: bool
    max_drop: float
    sure: bool
    drop: Drop
    data: DataIdentity
    noise: tuple[LayerNoise, ...]


@dataclass(frozen=True, kw_only=True)
class AutotuneResult(Record):
    """`front`: names of the candidates that none beats in both accuracy and speed. `why`: sentences."""

    KIND = "autotune"

    target: str
    bundle: str
    chosen: str
    held: bool
    max_drop: float
    sure: bool
    p99: float | None
    why: tuple[str, ...]
    stopped: str
    front: tuple[str, ...]
    rows: tuple[AutotuneCandidate, ...]
    measured_by: str
    data: DataIdentity
    machine: Machine


@dataclass(frozen=True, kw_only=True)
class DesignRow:
    """A student that was measured. `size`: width, height; `ms`: median latency; `miou`: 0..1 on the validation frames,
    None where it was slower than the limit and was not trained; `found_by`: own (the recipe's), guided, random."""

    name: str
    arch: str
    width: float
    size: tuple[int, int]
    precision: str
    ms: float
    miou: float | None
    seconds: float
    found_by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ArchitectureResult(Record):
    """`hypervolume`: by sampler, of what it found: ms below the slowest or the limit x mIoU, 0..1 of that rectangle;
    `seconds`: what its trials cost. `speedup`: of the chosen over the recipe's own, interleaved. `held`: whether any
    design holds `max_ms`."""

    KIND = "architecture-search"

    recipe: str
    target: str
    chosen: str
    own: str
    held: bool
    max_ms: float | None
    epochs: int
    trials: int
    speedup: float
    front: tuple[str, ...]
    hypervolume: dict[str, float]
    seconds: dict[str, float]
    rows: tuple[DesignRow, ...]
    machine: Machine


@dataclass(frozen=True, kw_only=True)
class SensitivityResult(Record):
    KIND = "sensitivity"

    model: str
    target: str
    calibration: dict[str, str | int]
    layers: tuple[LayerNoise, ...]


def pareto_front(points: Iterable[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Of points (name, cost, gain) those that no other beats in both, by cost."""
    best: list[tuple[str, float, float]] = []
    for point in sorted(points, key=lambda p: (p[1], -p[2])):
        if not best or point[2] > best[-1][2]:
            best.append(point)
    return best
