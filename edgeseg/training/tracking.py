"""The numbers of every epoch for TensorBoard or MLflow, where the recipe asks for one of these optional packages."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeseg.errors import MissingPackage


class Tracker:
    """Writes nothing. A context manager, like the trackers below."""

    def __enter__(self) -> Tracker:
        return self

    def row(self, row: dict[str, Any]) -> None:
        """The history row of one epoch: its numbers at step `epoch`."""

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

    def row(self, row: dict[str, Any]) -> None:
        for key, value in row.items():
            if key != "epoch":
                self.writer.add_scalar(key, value, row["epoch"])

    def __exit__(self, *error: object) -> None:
        self.writer.close()


class MLflow(Tracker):
    """A run of the server that MLflow's own environment variables name, else in FOLDER/mlflow.db (SQLite)."""

    def __init__(self, folder: Path, title: str, settings: dict[str, Any]):
        try:
            self.mlflow: Any = importlib.import_module("mlflow")
            importlib.import_module("sqlalchemy")  # mlflow-skinny leaves it out, SQLite needs it
        except ImportError as error:
            raise MissingPackage("mlflow-skinny", "track = 'mlflow'", "mlflow") from error
        if not self.mlflow.is_tracking_uri_set():
            folder.mkdir(parents=True, exist_ok=True)
            self.mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        known = folder / "mlflow-run.txt"  # so that a resumed training goes on in the same run
        run = self.mlflow.start_run(run_id=known.read_text() if known.is_file() else None, run_name=title)
        if not known.is_file():
            known.write_text(run.info.run_id)
            self.mlflow.log_params(settings)

    def row(self, row: dict[str, Any]) -> None:
        self.mlflow.log_metrics({k: float(v) for k, v in row.items() if k != "epoch"}, step=row["epoch"])

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.mlflow.end_run("FINISHED" if kind is None else "FAILED")


def tracker(name: str, folder: Path, title: str, settings: dict[str, Any]) -> Tracker:
    """`name` as in recipe.Machine.track."""
    if name == "tensorboard":
        return TensorBoard(folder)
    return MLflow(folder, title, settings) if name == "mlflow" else Tracker()
