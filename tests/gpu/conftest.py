"""A real NVIDIA GPU, or the reason why there is none; what is measured is written to build/gpu.json."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fake_tensorrt
import pytest
from typer.testing import CliRunner

from edgeseg import backends
from edgeseg.cli import app
from edgeseg.machine import fingerprint

ROOT = Path(__file__).parents[2]
FAKE = os.environ.get("EDGESEG_TEST_GPU") == "fake"  # tests/trt runs these tests on a fake board, to try the tests
Run = Callable[..., None]


@pytest.fixture(scope="session")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Skips where TensorRT has no GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        if FAKE:
            fake_tensorrt.Board().install(patch)
        if reason := backends.get("tensorrt").probe():
            pytest.skip(f"no GPU for TensorRT here: {reason}")
        yield


@pytest.fixture(scope="session")
def figures(gpu: None) -> Iterator[dict[str, Any]]:
    """What the tests measure, by name."""
    found: dict[str, Any] = {"gpu": "fake" if FAKE else _nvidia_smi("name,driver_version,memory.total")}
    yield found
    found["machine"] = asdict(fingerprint())
    if not FAKE:
        (ROOT / "build").mkdir(exist_ok=True)
        (ROOT / "build" / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")


@pytest.fixture(scope="session")
def edgeseg() -> Run:
    """Run a command of edgeseg in this process; it must end with 0."""

    def run(*words: object) -> None:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, (words, result.output, result.exception)

    return run


@pytest.fixture(scope="session")
def streets(edgeseg: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("streets") / "data"
    edgeseg("synth", root, "--train", 32, "--val", 4, "--test", 24, "--seed", 77)
    return root


def _nvidia_smi(query: str) -> str:
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def gpu_memory_mb() -> Callable[[], float]:
    """Used memory of the GPU, all processes."""
    if FAKE:
        return lambda: 0.0
    return lambda: float(_nvidia_smi("memory.used").splitlines()[0])
