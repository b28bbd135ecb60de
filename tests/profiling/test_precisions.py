"""What a precision gains here: measured on real engines; when it is not worth it, and what compile says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeseg import cpus
from edgeseg.bundle import Bundle
from edgeseg.precision import Precision
from edgeseg.profiling import precisions
from edgeseg.profiling.precisions import faster_float, speeds

FP32, BF16, INT8 = Precision.FP32, Precision.BF16, Precision.INT8
STREET = Path(__file__).resolve().parents[2] / "models" / "street" / "street.onnx"


@pytest.mark.parametrize("target", ["openvino-cpu", "onnxruntime-cpu", "tflite-cpu"])
def test_each_float_precision_of_the_target_is_measured(target, bundle_of, network):
    bundle = Bundle.load(bundle_of(target, "int8"))
    found = speeds(bundle, network)
    others = {BF16} if target == "openvino-cpu" and cpus.has_bf16() else set()
    assert set(found) == {INT8, FP32, *others} and found[FP32] == 1
    assert 0.05 < found[INT8] < 100


def test_a_target_that_is_not_here_is_not_measured(bundle_of, network):
    bundle = Bundle.load(bundle_of("jetson-orin", "fp16"))
    assert speeds(bundle, network) == {}


def test_a_precision_is_worth_it_when_it_is_faster_than_every_float_one():
    assert faster_float({INT8: 2.4, FP32: 1, BF16: 1.9}, INT8) is None
    assert faster_float({INT8: 1.92, FP32: 1, BF16: 1.9}, INT8) is BF16
    assert faster_float({INT8: 0.9, FP32: 1}, INT8) is FP32
    assert faster_float({BF16: 1.01, FP32: 1}, BF16) is FP32
    assert faster_float({BF16: 1.5, FP32: 1}, BF16) is None


def test_compile_says_it(edgeseg, tmp_path, monkeypatch):
    out = tmp_path / "b"
    words = ("compile", STREET, "--precision", "bf16", "--out", out, "--json", "-")
    told = json.loads(edgeseg(*words).out)["speed_over_fp32"]
    assert told["fp32"] == 1 and told["bf16"] > 0

    monkeypatch.setattr(precisions, "speeds", lambda *given: {BF16: 0.97, FP32: 1.0})
    result = edgeseg(*words)
    assert result.code == 0
    assert "bf16 is no faster than fp32 on this CPU (0.97 to 1.00 times fp32)" in " ".join(result.err.split())
    assert "--precision fp32 costs less accuracy" in " ".join(result.err.split())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16 vnni", True),
        ("flags\t\t: fpu amx_bf16", True),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("flags\t\t: fpu avx2", False),
        ("model name : bf16 machine", False),
    ],
)
def test_bfloat16_is_read_from_the_flags(line, expected, tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    assert cpus.has_bf16(tmp_path) is expected
