"""The numbers of every epoch arrive in TensorBoard and MLflow, and an absent package is named."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest

from edgeseg.errors import MissingPackage
from edgeseg.results.stage import EpochResult
from edgeseg.training.tracking import tracker

RESULTS = [EpochResult(1, 0.5, 0.25, 0.5, 0.1, 7.0), EpochResult(2, 0.25, 0.75, 0.9, 0.0, 7.0)]


def write(name: str, folder: Path, results: list[EpochResult] = RESULTS) -> None:
    with tracker(name, folder, "student", {"lr": 0.1, "scale": (0.5, 2.0)}) as board:
        for result in results:
            board.log_epoch(result)


def test_tensorboard(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write("tensorboard", tmp_path)
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert sorted(found.Tags()["scalars"]) == ["loss", "lr", "seconds", "val_accuracy", "val_miou"]
    assert [(e.step, e.value) for e in found.Scalars("val_miou")] == [(1, 0.25), (2, 0.75)]


@pytest.mark.slow  # its database has many tables
def test_mlflow_writes_its_own_database_and_a_resumed_run_goes_on_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow.set_tracking_uri("")
    write("mlflow", tmp_path, RESULTS[:1])
    write("mlflow", tmp_path, RESULTS[1:])
    mlflow.set_tracking_uri("")
    with sqlite3.connect(tmp_path / "mlflow.db") as base:
        metrics = base.execute("select run_uuid, key, value, step from metrics order by step, key").fetchall()
        params = dict(base.execute("select key, value from params").fetchall())
        status = base.execute("select name, status from runs").fetchall()
    assert [row[1:] for row in metrics if row[1] in ("loss", "val_miou")] == [
        ("loss", 0.5, 1),
        ("val_miou", 0.25, 1),
        ("loss", 0.25, 2),
        ("val_miou", 0.75, 2),
    ]
    assert {row[1] for row in metrics} == {"loss", "lr", "seconds", "val_accuracy", "val_miou"}
    assert params == {"lr": "0.1", "scale": "(0.5, 2.0)"} and status == [("student", "FINISHED")]


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow-skinny")])
def test_an_absent_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    for module in ("mlflow", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackage, match=rf"needs the package {package}.*\n.*edgeseg\[{name}\]"):
        write(name, tmp_path)


def test_nothing_is_written_unless_asked(tmp_path: Path) -> None:
    write("", tmp_path)
    assert not list(tmp_path.iterdir())
