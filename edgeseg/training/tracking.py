"""Trackers: write the metrics of every epoch to TensorBoard or MLflow, both optional packages."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeseg.errors import MissingPackage
from edgeseg.results.stage import EpochResult


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
        try:
            self.mlflow: Any = importlib.import_module("mlflow")
            importlib.import_module("sqlalchemy")  # mlflow-skinny leaves it out, SQLite needs it
        except ImportError as error:
            raise MissingPackage("mlflow-skinny", "track = 'mlflow'", "mlflow") from error
        if not self.mlflow.is_tracking_uri_set():
            folder.mkdir(parents=True, exist_ok=True)
            self.mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        run_file = folder / "mlflow-run.txt"  # so that a resumed training continues the same run
        run = self.mlflow.start_run(run_id=run_file.read_text() if run_file.is_file() else None, run_name=title)
        if not run_file.is_file():
            run_file.write_text(run.info.run_id)
            self.mlflow.log_params(settings)

    def log_epoch(self, result: EpochResult) -> None:
        self.mlflow.log_metrics(result.metrics(), step=result.epoch)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.mlflow.end_run("FINISHED" if kind is None else "FAILED")


def tracker(name: str, folder: Path, title: str, settings: dict[str, Any]) -> Tracker:
    """The tracker called `name`, one of recipe.Machine.track's choices."""
    if name == "tensorboard":
        return TensorBoard(folder)
    return MLflow(folder, title, settings) if name == "mlflow" else Tracker()
