"""Training on a GPU: half precision, and the same through torchrun."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RECIPE = """
name = "gpu"
seed = 1
[data]
root = "{data}"
size = [96, 160]
[student]
arch = "lite"
width = 0.5
epochs = 4
batch = 4
precision = "{precision}"
[machine]
device = "cuda"
"""


@pytest.fixture(scope="module")
def torch_gpu() -> Any:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU for torch here")
    return torch


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("torchrun", [False, True], ids=["alone", "torchrun"])
def test_a_student_learns(torch_gpu: Any, streets: Path, precision: str, torchrun: bool, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(data=streets, precision=precision))
    start = ["torch.distributed.run", "--nproc_per_node", "1", "-m"] if torchrun else []
    command = [
        sys.executable,
        "-m",
        *start,
        "edgeseg",
        "train",
        str(recipe),
        "--role",
        "student",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "student.json").read_text())
    losses = [epoch["loss"] for epoch in result["history"]]
    assert len(losses) == 4 and losses[-1] < losses[0]
