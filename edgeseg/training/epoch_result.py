"""The figures of one epoch: a row of the training history, of a tracker and of a stage's JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EpochResult:
    """`epoch` counts from 1; `loss`: mean over its steps; `val_miou`, `val_accuracy`: 0..1; `lr`: at its end."""

    epoch: int
    loss: float
    val_miou: float
    val_accuracy: float
    lr: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def metrics(self) -> dict[str, float]:
        """Everything but the epoch, by name."""
        return {name: float(value) for name, value in self.to_dict().items() if name != "epoch"}


History = list[EpochResult]


def best_epoch(history: Sequence[EpochResult]) -> int:
    """The first epoch with the highest val mIoU; 0 for an empty history."""
    return max(history, key=lambda result: result.val_miou).epoch if history else 0
