"""OpenVINO devices: properties of each, verifying a bundle where its device is absent, and the error of running it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg import backends
from edgeseg.backends import openvino
from edgeseg.bundle import Bundle
from edgeseg.errors import EdgesegError
from edgeseg.runtime import open_segmenter
from edgeseg.target import Target

ov = pytest.importorskip("openvino")
ABSENT = [d for d in ("GPU", "NPU") if not any(n.startswith(d) for n in ov.Core().available_devices)]


@pytest.mark.parametrize(
    ("device", "precision", "hint"),
    [("CPU", "fp16", "f32"), ("CPU", "bf16", "bf16"), ("GPU", "fp32", "f32"), ("GPU", "int8", "f16"),
     ("NPU", "fp16", "f16"), ("NPU", "int8", "f16"), ("AUTO", "int8", "f32")],
)  # fmt: skip
def test_the_compute_precision_of_each_device(device: str, precision: str, hint: str) -> None:
    assert openvino.COMPUTE[device][precision] == hint
    assert openvino.properties(device, hint, "latency")["INFERENCE_PRECISION_HINT"] == hint


@pytest.mark.parametrize("name", ["cpu", "gpu", "npu", "auto"])
def test_every_precision_of_a_target_has_a_hint(name: str) -> None:
    target = Target.load(f"openvino-{name}")
    assert set(target.precisions) == set(openvino.COMPUTE[target.device])
    assert target.preset in ("mixed", "performance")


def test_properties_for_streams_cache_and_threads(tmp_path: Path) -> None:
    reported = openvino.properties("CPU", "f32", "throughput", threads=1)
    assert reported == {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    gpu = openvino.properties("GPU", "f16", "latency", threads=1)
    assert "INFERENCE_NUM_THREADS" not in gpu and gpu["PERFORMANCE_HINT"] == "LATENCY"
    assert openvino.cached_in(tmp_path) == {"CACHE_DIR": str(tmp_path), "ENABLE_MMAP": False}


@pytest.mark.parametrize("device", ABSENT)
def test_a_bundle_for_an_absent_device_is_verified_on_the_cpu(
    device: str, bundle_of: Callable[[str, str], Path], edgeseg: Callable[..., Any]
) -> None:
    target = Target.load(f"openvino-{device.lower()}")
    assert f"OpenVINO finds no {device} here, only: CPU" in backends.missing(target)
    path = bundle_of(target.name, "fp16")
    manifest = Bundle.load(path).manifest
    assert manifest.proved_by == "openvino:CPU" and manifest.versions["openvino"]
    assert manifest.parity.agreement > 0.995
    with pytest.raises(EdgesegError) as caught:
        open_segmenter(path)
    assert f"is for another device: OpenVINO finds no {device} here, only: CPU" in caught.value.what
    assert "driver" in caught.value.hint
    with open_segmenter(path, backend="openvino:CPU") as segmenter:
        assert segmenter.engine.slots == 1
    result = edgeseg("verify", path)
    assert result.code == 0 and "through openvino:CPU" in result.out
    result = edgeseg("bench", path)
    assert result.code == 2 and f"can only be measured on its device ({target.name})" in result.err
    assert f"finds no {device}" in edgeseg("targets").out


def test_auto_runs_on_an_available_device(bundle_of: Callable[[str, str], Path], bundle: Path) -> None:
    import tiny

    image = tiny.frames(1)[0]
    with open_segmenter(bundle_of("openvino-auto", "fp32")) as auto, open_segmenter(bundle) as cpu:
        if not ABSENT:
            pytest.skip("another device may run it")
        np.testing.assert_array_equal(auto(image).classmap, cpu(image).classmap)


def asymmetric(path: Path) -> int:
    """How many activations have an INT8 range that is neither symmetric nor unsigned."""
    count = 0
    for op in ov.Core().read_model(path / "model.xml").get_ops():
        if op.get_type_name() != "FakeQuantize":
            continue
        low, high = (np.asarray(op.input_value(i).get_node().get_data()) for i in (1, 2))
        count += low.size == 1 and low.item() != 0 and abs(low.item() + high.item() * 128 / 127) > 1e-3 * high.item()
    return count


def test_the_preset_of_a_target_reaches_nncf(bundle_of: Callable[[str, str], Path]) -> None:
    assert asymmetric(bundle_of("openvino-cpu", "int8")) > 0
    assert asymmetric(bundle_of("openvino-gpu", "int8")) == 0
