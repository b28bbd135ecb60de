"""Targets and backends: every table is complete, unknown names get a suggestion."""

from __future__ import annotations

import pytest

from edgeseg import backends, target
from edgeseg.errors import OptionError
from edgeseg.quantization import schemes
from edgeseg.target import Target


@pytest.mark.parametrize("name", target.names())
def test_every_target_is_complete_and_names_existing_modules(name: str) -> None:
    profile = Target.load(name)
    assert profile.backend in backends.names()
    assert profile.quantizer in schemes.names()
    assert "fp16" in profile.precisions
    assert set(profile.precisions) <= {"fp32", "fp16", "bf16", "dynamic", "int8", "int8-bf16"}
    assert profile.title
    assert profile.build_mode in target.BUILD_MODES
    if profile.build_mode:
        assert profile.proxy and profile.opset and profile.tensorrt and profile.workspace_mb
        assert target.version(profile.tensorrt[0]) <= target.version(profile.tensorrt[1])


# NVIDIA's tables: compute capability, DLA cores (those TensorRT can drive), megabytes of the smallest module.
BOARDS = {
    "jetson-nano": ("5.3", 0, 4096, "runner", ("8.2", "8.2")),
    "jetson-xavier-nx": ("7.2", 2, 8192, "runner", ("8.5", "8.5")),
    "jetson-agx-xavier": ("7.2", 2, 16384, "runner", ("8.5", "8.5")),
    "jetson-orin-nano": ("8.7", 0, 4096, "native", ("8.6", "11.4")),
    "jetson-orin-nx": ("8.7", 2, 8192, "native", ("8.6", "11.4")),
    "jetson-orin": ("8.7", 2, 32768, "native", ("8.6", "11.4")),
    "jetson-thor": ("11.0", 0, 65536, "native", ("10.13", "11.4")),
}


@pytest.mark.parametrize("name", BOARDS)
def test_boards_match_the_tables_of_nvidia(name: str) -> None:
    board = Target.load(name)
    assert (board.compute_capability, board.dla_cores, board.memory_mb, board.build_mode, board.tensorrt) == BOARDS[
        name
    ]
    assert board.unified_memory and board.power_modes and board.jetpack and board.workspace_mb < board.memory_mb / 4
    assert ("int8" in board.precisions) == (name != "jetson-nano")
    assert board.frame == ("float32" if name == "jetson-nano" else "uint8")  # TensorRT has uint8 inputs since 8.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("openvino_cpu", "Unknown target 'openvino_cpu'.\nDid you mean 'openvino-cpu'?"),
        ("../targets/openvino-cpu", "Unknown target"),
        ("", "Unknown target ''"),
        ("onnxruntime-cpu:bf16", "Target onnxruntime-cpu has no precision 'bf16'.\nIt has: fp32, fp16, int8."),
        ("openvino-cpu:int4", "Unknown precision 'int4'"),
    ],
)
def test_unknown_names_and_precisions_are_rejected(text: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        target.split(text)
    assert message in str(caught.value)


def test_a_target_without_a_precision_means_fp32() -> None:
    profile, precision = target.split("openvino-cpu")
    assert (profile.name, precision) == ("openvino-cpu", "fp32")


@pytest.mark.parametrize("name", sorted({*backends.names()} - {"tensorrt"}))
def test_every_backend_runs_here(name: str) -> None:
    assert backends.get(name).probe() == ""


def test_tensorrt_gives_the_reason_why_it_cannot_run() -> None:
    reason = backends.get("tensorrt").probe()
    assert reason == "" or reason.startswith(("TensorRT is not installed", "CUDA failed", "TensorRT needs the package"))


def test_an_unknown_backend_is_an_error() -> None:
    with pytest.raises(OptionError, match="Did you mean 'openvino'"):
        backends.get("openvin")
