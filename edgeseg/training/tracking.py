"""Trackers: write the metrics of every epoch to TensorBoard or MLflow, both optional packages."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from edgeseg.errors import MissingPackage
from edgeseg.results.stage import EpochResult
from edgeseg.telemetry.mlflow_run import MLflowRun


class Tracker:
    """Tracks nothing. A context manager, like the trackers below."""

    def __enter__(self) -> Tracker:
        return self

    def log_epoch(self, result: EpochResult) -> None:
        """Record the metrics of one epoch at step `epoch`."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class TensorBoard(Tracker):
    """Event files in FOLDER/tensorboard: `tensorboard --logdir FOLDER`."""

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingPackage("tensorboard", "track = 'tensorboard'", "tensorboard") from error
        self.writer: Any = SummaryWriter(str(folder / "tensorboard"))

    def log_epoch(self, result: EpochResult) -> None:
        for key, value in result.metrics().items():
            self.writer.add_scalar(key, value, result.epoch)

    def __exit__(self, *error: object) -> None:
        self.writer.close()


class MLflow(Tracker):
    """A run on the server named by MLflow's own environment variables, or else in FOLDER/mlflow.db (SQLite)."""

    def __init__(self, folder: Path, title: str, settings: dict[str, Any]):
        self._run = MLflowRun(folder, title, settings, "track = 'mlflow'")

    def log_epoch(self, result: EpochResult) -> None:
        self._run.log(result.metrics(), result.epoch)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._run.end(failed=kind is not None)


def tracker(name: str, folder: Path, title: str, settings: dict[str, Any]) -> Tracker:
    """The tracker called `name`, one of recipe.Machine.track's choices."""
    if name == "tensorboard":
        return TensorBoard(folder)
    return MLflow(folder, title, settings) if name == "mlflow" else Tracker()
