"""Stage results survive a round trip; newer, incomplete and foreign files are rejected."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from edgeseg.errors import FileError, OptionError
from edgeseg.results.stage import EpochResult, PrunedLatency, StageResult, best_epoch

HISTORY = (EpochResult(1, 0.9, 0.2, 0.5, 0.1, 2.0), EpochResult(2, 0.7, 0.4, 0.6, 0.0, 2.0))
STAGE = StageResult(
    stage="pruned", val_miou=0.4, macs=1000, params=50, seconds=4.0, history=HISTORY, recipe={"name": "tiny"}
)
LATENCY = PrunedLatency("openvino-cpu", "fp32", 2.0, 1.0, 0.5, 0.45)


@pytest.mark.parametrize("latency", [None, LATENCY, "it builds its engines on the board"])
def test_a_stage_result_survives_json(tmp_path: Path, latency: PrunedLatency | str | None) -> None:
    result = dataclasses.replace(STAGE, pruned_from_macs=2000, latency=latency)
    result.save(tmp_path / "pruned.json")
    assert StageResult.load(tmp_path / "pruned.json") == result
    data = json.loads((tmp_path / "pruned.json").read_text())
    assert (data["kind"], data["schema"]) == ("stage", 1)


def test_a_checkpoint_that_was_not_pruned_has_no_parent() -> None:
    assert set(STAGE.metrics()) == {"stage", "val_miou", "macs", "params"}
    assert dataclasses.replace(STAGE, pruned_from_macs=2000).metrics()["pruned_from_macs"] == 2000


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"schema": 2}, OptionError, r"r\.json has schema 2, from a newer edgeseg\.\nThis one reads schemas up to 1"),
        ({"kind": "bench"}, FileError, r"r\.json is of kind 'bench'\.\nExpected a result of kind 'stage'"),
        ({"history": [{"epoch": 1}]}, FileError, r"r\.json is not a complete stage result: .*loss"),
        ({"latency": {"ms": 1}}, FileError, r"r\.json is not a complete stage result: "),
    ],
)
def test_invalid_values_are_rejected(
    tmp_path: Path, change: dict[str, object], error: type[Exception], message: str
) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(STAGE.to_dict() | change))
    with pytest.raises(error, match=message):
        StageResult.load(path)


def test_the_best_epoch_is_the_first_of_equals() -> None:
    assert best_epoch([]) == 0
    assert best_epoch([*HISTORY, EpochResult(3, 0.6, 0.4, 0.6, 0.0, 2.0)]) == 2
