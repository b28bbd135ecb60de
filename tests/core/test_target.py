"""Targets and backends: every table is complete, every name is found or answered with the nearest one."""

from __future__ import annotations

import pytest

from edgeseg import backends, target
from edgeseg.compression.quantize import RULES
from edgeseg.errors import OptionError
from edgeseg.target import Target


@pytest.mark.parametrize("name", target.names())
def test_every_table_names_parts_that_exist(name: str) -> None:
    loaded = Target.load(name)
    assert loaded.backend in backends.names()
    assert loaded.quantizer in RULES
    assert {"fp32", "int8"} <= set(loaded.precisions) <= {"fp32", "fp16", "bf16", "int8"}
    assert loaded.title


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("openvino_cpu", "Unknown target 'openvino_cpu'.\nDid you mean 'openvino-cpu'?"),
        ("../targets/openvino-cpu", "Unknown target"),
        ("", "Unknown target ''"),
        ("onnxruntime-cpu:bf16", "Target onnxruntime-cpu has no precision 'bf16'.\nIt has: fp32, fp16, int8."),
        ("openvino-cpu:int4", "has no precision 'int4'"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        target.split(text)
    assert message in str(caught.value)


def test_a_target_alone_means_fp32() -> None:
    found, precision = target.split("openvino-cpu")
    assert (found.name, precision) == ("openvino-cpu", "fp32")


@pytest.mark.parametrize("name", backends.names())
def test_every_backend_runs_here(name: str) -> None:
    assert backends.get(name).probe() == ""


def test_an_unknown_backend() -> None:
    with pytest.raises(OptionError, match="Did you mean 'openvino'"):
        backends.get("openvin")
