"""Accuracy in the field and what a training became, in a real MLflow with a database in a temporary folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_accuracy import START, field, rows_of, truth  # noqa: F401 -- a fixture

from edgeseg.bundle import Bundle
from edgeseg.pipeline import note_bundles
from edgeseg.results.stage import EpochResult


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = pytest.importorskip("mlflow", reason="needs MLflow: pip install 'edgeseg[mlflow]'")
    pytest.importorskip("sqlalchemy")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found.set_tracking_uri("")
    yield found
    found.set_tracking_uri("")


@pytest.mark.slow  # its database has many tables
def test_accuracy_over_time_is_one_run_of_a_bundle(
    edgeseg: Callable[..., Any],
    bundle: Path,
    truth: Any,  # noqa: F811
    tmp_path: Path,
    mlflow: Any,
) -> None:
    labels = field(tmp_path / "d", truth, [*rows_of(12), *rows_of(12, wrong=32, day=1)])
    words = ("accuracy", bundle, "--labels", labels, "--history", tmp_path / "h.jsonl", "--mlflow", "--min-miou", "10")
    assert edgeseg(*words).code == 0
    field(labels, truth, rows_of(12, "yard", day=2), start=24)
    mlflow.set_tracking_uri("")
    assert edgeseg(*words).code == 0  # goes on in the same run
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    [run] = client.search_runs(["0"])
    assert run.info.status == "FINISHED" and run.data.params["digest"] == Bundle.load(bundle).digest
    history = client.get_metric_history(run.info.run_id, "gate/random/miou")
    points = {(m.step, round(m.timestamp / 1000 - START)): m.value for m in history}
    assert len(points) == len(history) == 2 and sorted(at for _, at in points) == [43200, 129600]
    values = [points[key] for key in sorted(points)]
    assert values[0] == 1 and values[1] < 0.6
    low, high = (client.get_metric_history(run.info.run_id, f"gate/random/{end}")[-1].value for end in ("low", "high"))
    assert low <= values[1] <= high
    assert run.data.metrics["yard/all/frames"] == 12 and run.data.tags["edgeseg.verdict"] == "pass"
    assert run.data.tags["edgeseg.frames"] == "36"


@pytest.mark.slow
def test_the_bundle_that_a_training_became_is_noted_in_its_run(bundle: Path, tmp_path: Path, mlflow: Any) -> None:
    from edgeseg.training.tracking import tracker

    with tracker("mlflow", tmp_path, "pruned", {"lr": 0.1}) as board:
        board.log_epoch(EpochResult(1, 0.5, 0.25, 0.5, 0.1, 7.0))
    made = SimpleNamespace(name="street-int8", path=str(bundle), miou=0.75)
    result: Any = SimpleNamespace(recipe={"name": "street", "seed": 3}, bundles=(made,))
    note_bundles(result, tmp_path)
    note_bundles(result, tmp_path / "nothing")  # a training from before it was tracked
    [run] = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_runs(["0"])
    assert run.data.tags["edgeseg.bundle.street-int8"] == Bundle.load(bundle).digest
    assert json.loads(run.data.tags["edgeseg.recipe"]) == {"name": "street", "seed": 3}
    assert run.data.metrics["bundle/street-int8/miou"] == 0.75 and run.data.metrics["val_miou"] == 0.25
    assert run.info.run_name == "pruned" and run.data.params == {"lr": "0.1"} and run.info.status == "FINISHED"


def test_without_the_package_nothing_is_scored(
    edgeseg: Callable[..., Any], bundle: Path, street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    ran = edgeseg("accuracy", bundle, "--labels", street, "--history", tmp_path / "h.jsonl", "--mlflow")
    assert ran.code == 2 and "--mlflow needs the package mlflow-skinny" in ran.err and "edgeseg[mlflow]" in ran.err
    assert not (tmp_path / "h.jsonl").exists()
