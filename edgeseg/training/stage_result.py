"""The result of one training stage: what NAME.json beside a checkpoint NAME.pt holds."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.errors import FileError
from edgeseg.files import require_file, write_bytes
from edgeseg.recipe import Recipe
from edgeseg.training.epoch_result import EpochResult

SCHEMA = 1


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


@dataclass(frozen=True)
class StageResult:
    """`val_miou`: 0..1, of the resulting weights. `macs`: multiply-accumulates of one frame. `params`: parameters.

    Of pruning only: `pruned_from_macs`, and `latency` or the reason why it could not be measured on this machine.
    """

    stage: str
    val_miou: float
    macs: int
    params: int
    seconds: float
    history: tuple[EpochResult, ...]
    recipe: Recipe
    pruned_from_macs: int | None = None
    latency: PrunedLatency | str | None = None

    def metrics(self) -> dict[str, Any]:
        """What is stored in the checkpoint too: the same run always gives the same values."""
        keys = ("stage", "val_miou", "macs", "params", "pruned_from_macs")
        return {key: value for key in keys if (value := getattr(self, key)) is not None}

    def to_dict(self) -> dict[str, Any]:
        latency = dataclasses.asdict(self.latency) if isinstance(self.latency, PrunedLatency) else self.latency
        return {
            "schema": SCHEMA,
            **self.metrics(),
            "seconds": self.seconds,
            "history": [epoch.to_dict() for epoch in self.history],
            "recipe": self.recipe.to_dict(),
            **({} if latency is None else {"latency": latency}),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any], path: Path) -> StageResult:
        """`path` names the file in errors. FileError for a newer schema or missing keys."""
        if data.get("schema", 0) > SCHEMA:
            raise FileError(
                f"Stage result {path} has schema {data['schema']}.",
                f"This edgeseg reads schema {SCHEMA} and older: update edgeseg, or train the stage again.",
            )
        try:
            latency = data.get("latency")
            return cls(
                **{key: data[key] for key in ("stage", "val_miou", "macs", "params", "seconds")},
                history=tuple(EpochResult(**epoch) for epoch in data["history"]),
                recipe=Recipe.from_dict(data["recipe"], path),
                pruned_from_macs=data.get("pruned_from_macs"),
                latency=PrunedLatency(**latency) if isinstance(latency, dict) else latency,
            )
        except (KeyError, TypeError) as error:
            raise FileError(
                f"Stage result {path} is incomplete: {error}.", "Expected the JSON of a training stage; train it again."
            ) from error

    def save(self, path: Path) -> None:
        write_bytes(path, json.dumps(self.to_dict(), indent=2).encode())

    @classmethod
    def load(cls, path: Path) -> StageResult:
        """FileError for a file that is missing, not JSON, of a newer schema or incomplete."""
        try:
            data = json.loads(require_file(path, "Stage result").read_bytes())
        except ValueError as error:
            raise FileError(f"Stage result {path} is not JSON: {error}.", "Train the stage again.") from error
        return cls.from_dict(data, path)
