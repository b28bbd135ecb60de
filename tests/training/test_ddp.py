"""Two gloo processes that share every batch train as one process does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ddp_run
import pytest
import torch

from edgeseg.training import checkpoint

SCRIPT = Path(__file__).with_name("ddp_run.py")


def torchrun(processes: int, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", SCRIPT]
    paths = os.pathsep.join([str(SCRIPT.parents[2]), str(SCRIPT.parent)])
    return subprocess.run(
        [str(word) for word in (*command, *words)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    ran = torchrun(2, root, folder, "plain", "lite")
    assert ran.returncode == 0, ran.stderr
    return folder


@pytest.mark.parametrize("kind", ["plain", "lite"])
def test_two_processes_train_as_one(root: Path, tmp_path: Path, trained: Path, kind: str) -> None:
    """Without batch statistics the same to 1e-5; batch norms count over each process's own half, so only alike."""
    ddp_run.main(root, tmp_path, kind)
    alone = torch.load(tmp_path / "rank0.pt")
    both: list[dict[str, Any]] = [torch.load(trained / kind / f"rank{rank}.pt") for rank in range(2)]
    assert [end["main"] for end in both] == [True, False]
    assert both[0]["history"] == both[1]["history"]
    for key, tensor in both[0]["state"].items():
        assert torch.equal(tensor, both[1]["state"][key]), key
        if kind == "plain":
            torch.testing.assert_close(tensor, alone["state"][key], rtol=1e-5, atol=1e-5)
    tolerance = 1e-4 if kind == "plain" else 0.1
    for row, other in zip(alone["history"], both[0]["history"]):
        assert other == pytest.approx(row, abs=tolerance)
    assert checkpoint.read(trained / kind / "last.pt")["epoch"] == 3
    assert len(list((trained / kind / "pictures").iterdir())) == 3


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared(root: Path, tmp_path: Path) -> None:
    ran = torchrun(3, root, tmp_path, "plain")
    assert ran.returncode != 0
    assert "A batch of 4 cannot be shared by 3 processes." in ran.stderr and "multiple of 3" in ran.stderr
