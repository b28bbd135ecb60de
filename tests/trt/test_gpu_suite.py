"""The tests of `make test-gpu` on a fake board: a GPU is rare, their own mistakes need not wait for one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("nncf")
ROOT = Path(__file__).parents[2]
SUITE = ["-m", "pytest", "-rs", str(ROOT / "tests" / "gpu" / "test_gpu_engines.py")]


@pytest.mark.slow
def test_it_passes_on_a_fake_board() -> None:
    environment = {**os.environ, "EDGESEG_TEST_GPU": "fake"}
    done = subprocess.run([sys.executable, *SUITE, "-v"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "21 passed" in done.stdout


def test_it_skips_with_the_reason_where_there_is_no_gpu() -> None:
    from edgeseg import backends

    if not backends.get("tensorrt").probe():
        pytest.skip("there is one")
    environment = {**os.environ, "EDGESEG_TEST_GPU": ""}
    done = subprocess.run([sys.executable, *SUITE], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "no GPU for TensorRT here: " in done.stdout and " passed" not in done.stdout
