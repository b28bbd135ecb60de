"""StageResult: what a training stage gave; NAME.json beside its checkpoint NAME.pt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeseg.records import Record


@dataclass(frozen=True)
class EpochResult:
    """`epoch` counts from 1; `loss`: mean over its steps; `val_miou`, `val_accuracy`: 0..1; `lr`: at its end."""

    epoch: int
    loss: float
    val_miou: float
    val_accuracy: float
    lr: float
    seconds: float

    def metrics(self) -> dict[str, float]:
        """Everything but the epoch, by name."""
        return {name: float(value) for name, value in asdict(self).items() if name != "epoch"}


def best_epoch(history: Sequence[EpochResult]) -> int:
    """The first epoch with the highest val mIoU; 0 for an empty history."""
    return max(history, key=lambda result: result.val_miou).epoch if history else 0


@dataclass(frozen=True)
class PrunedLatency:
    """Latency of a pruned net beside its parent's, on one target in one precision.

    `share`: ms / parent_ms, the median over interleaved pairs of runs; nine of ten pairs lie above `low`.
    """

    target: str
    precision: str
    parent_ms: float
    ms: float
    share: float
    low: float


@dataclass(frozen=True, kw_only=True)
class StageResult(Record):
    """`val_miou`: 0..1, of the resulting weights. `macs`: multiply-accumulates of one frame. `params`: parameters.

    `history`: one row per epoch. `recipe`: resolved, as plain values. Of pruning only: `pruned_from_macs`, the
    student's, and `latency`, or the reason why it could not be measured on this machine.
    """

    KIND = "stage"

    stage: str
    val_miou: float
    macs: int
    params: int
    seconds: float
    history: tuple[EpochResult, ...]
    recipe: dict[str, Any]
    pruned_from_macs: int | None = None
    latency: PrunedLatency | str | None = None

    def metrics(self) -> dict[str, float | int | str]:
        """What is stored in the checkpoint too: the same run always gives the same values."""
        keys = ("stage", "val_miou", "macs", "params", "pruned_from_macs")
        return {key: value for key in keys if (value := getattr(self, key)) is not None}
