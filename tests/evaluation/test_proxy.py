"""A bundle for a board that is not here: its accuracy is measured through the proxy, and every result says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgeseg.backends import get
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import compile_model
from edgeseg.report.page import load
from edgeseg.target import Target

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(not get("tensorrt").probe(), reason="TensorRT is here")
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def board(bundle_of: Callable[[str, str], Path]) -> Path:
    return bundle_of("jetson-orin", "int8")


def test_verify_eval_and_gate(
    board: Path, bundle_of: Callable[[str, str], Path], street: Path, tmp_path: Path, edgeseg: Run
) -> None:
    ran = edgeseg("verify", board, "--json", tmp_path / "verify.json")
    assert ran.code == 0 and "worst agreement 1.0000, through onnxruntime" in ran.out
    assert json.loads((tmp_path / "verify.json").read_text())["backend"] == "through onnxruntime"
    ran = edgeseg("eval", board, "--data", street, "--json", tmp_path / "eval.json")
    assert ran.code == 0 and "through onnxruntime, not on its device: speeds say nothing" in ran.out
    assert json.loads((tmp_path / "eval.json").read_text())["backend"] == "through onnxruntime"
    parent = bundle_of("onnxruntime-cpu", "fp32")
    words = ("gate", board, "--data", street, "--parent", parent, "--max-drop", "50", "--max-gain", "50")
    ran = edgeseg(*words, "--json", tmp_path / "gate.json")
    assert ran.code == 0 and "measured through onnxruntime" in ran.out
    assert load(tmp_path / "gate.json").backend == "through onnxruntime"
    ran = edgeseg("report", tmp_path / "eval.json", "--out", tmp_path / "page.md")
    assert ran.code == 0 and "through onnxruntime, not on the bundle's device" in (tmp_path / "page.md").read_text()


def test_its_own_backend_is_named_without_through(
    bundle_of: Callable[[str, str], Path], street: Path, tmp_path: Path, edgeseg: Run
) -> None:
    out = tmp_path / "eval.json"
    assert edgeseg("eval", bundle_of("onnxruntime-cpu", "fp32"), "--data", street, "--json", out).code == 0
    assert json.loads(out.read_text())["backend"] == "onnxruntime"


def test_speeds_are_refused(board: Path, street: Path, edgeseg: Run) -> None:
    ran = edgeseg("bench", board)
    assert ran.code == 2 and "can only be measured on its device (jetson-orin)" in ran.err
    assert "edgeseg eval" in ran.err
    ran = edgeseg("gate", board, "--data", street, "--class-floor", "road=1", "--max-p99", "20ms")
    assert ran.code == 2 and "Leave out --max-p99 here" in ran.err


def test_frames_are_not_run_through_a_proxy(board: Path, tmp_path: Path, edgeseg: Run) -> None:
    ran = edgeseg("run", board, "--source", "synthetic://street", "--max-frames", "2")
    assert ran.code == 2 and "cannot run here: TensorRT is not installed" in ran.err


def test_int8_that_is_found_on_the_device_cannot_be_measured_elsewhere(
    network: Path, street: Path, tmp_path: Path, edgeseg: Run
) -> None:
    bundle = compile_model(
        network, tmp_path / "out", Target.load("jetson-orin").calibrated_on_device(), "int8", spec=tiny.SPEC,
        frames=tiny.frames(2), calibration=CalibrationSet.choose(street, 10),
    )  # fmt: skip
    ran = edgeseg("eval", bundle.path, "--data", street)
    assert ran.code == 2 and "gets its INT8 on the device" in ran.err and "without --entropy" in ran.err
