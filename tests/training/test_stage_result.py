"""Stage results survive a round trip; newer, incomplete and foreign files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_helpers import recipe

from edgeseg.errors import FileError
from edgeseg.training.epoch_result import EpochResult, best_epoch
from edgeseg.training.stage_result import PrunedLatency, StageResult

HISTORY = (EpochResult(1, 0.9, 0.2, 0.5, 0.1, 2.0), EpochResult(2, 0.7, 0.4, 0.6, 0.0, 2.0))
LATENCY = PrunedLatency("openvino-cpu", "fp32", 2.0, 1.0, 0.5, 0.45)


@pytest.mark.parametrize("latency", [None, LATENCY, "it builds its engines on the board"])
def test_round_trip(tmp_path: Path, latency: PrunedLatency | str | None) -> None:
    macs = None if latency is None else 2000
    result = StageResult("pruned", 0.4, 1000, 50, 4.0, HISTORY, recipe(), macs, latency)
    result.save(tmp_path / "pruned.json")
    assert StageResult.load(tmp_path / "pruned.json") == result
    data = json.loads((tmp_path / "pruned.json").read_text())
    assert data["schema"] == 1 and ("latency" in data) == (latency is not None)
    assert "pruned_from_macs" in data or latency is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, r"r\.json has schema 2\.\nThis edgeseg reads schema 1 and older"),
        ({"history": [{"epoch": 1}]}, r"r\.json is incomplete: .*\nExpected the JSON of a training stage"),
        ({"latency": {"ms": 1}}, r"r\.json is incomplete: "),
    ],
)
def test_what_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    data = StageResult("student", 0.4, 1000, 50, 4.0, HISTORY, recipe()).to_dict() | change
    path = tmp_path / "r.json"
    path.write_text(json.dumps(data))
    with pytest.raises(FileError, match=message):
        StageResult.load(path)


def test_missing_keys_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("{}")
    with pytest.raises(FileError, match=r"is incomplete: 'stage'"):
        StageResult.load(path)
    path.write_text("{")
    with pytest.raises(FileError, match=r"is not JSON: .*\nTrain the stage again"):
        StageResult.load(path)
    with pytest.raises(FileError, match=r"Stage result .* does not exist"):
        StageResult.load(tmp_path / "none.json")


def test_the_best_epoch_is_the_first_of_equals() -> None:
    assert best_epoch([]) == 0
    assert best_epoch([*HISTORY, EpochResult(3, 0.6, 0.4, 0.6, 0.0, 2.0)]) == 2
