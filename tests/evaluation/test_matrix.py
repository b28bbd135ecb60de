"""The parity matrix: every installed backend against the network itself, on the same frames."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgeseg.errors import EdgesegError
from edgeseg.evaluation import parity
from edgeseg.evaluation.matrix import Reference, compare, matrix
from edgeseg.images import write_image
from edgeseg.target import Target, split

FRAMES = tiny.frames(4, seed=21)
BACKENDS = ("openvino-cpu", "onnxruntime-cpu", "tflite-cpu")


@pytest.fixture(scope="module")
def reference(network: Path) -> Reference:
    return Reference.of_outputs(*parity.outputs(network, tiny.SPEC, FRAMES), tiny.SPEC)


def test_every_backend_agrees_with_the_network(reference: Reference, bundle_of: Callable[[str, str], Path]) -> None:
    pairs = [split(f"{name}:{p}") for name in BACKENDS for p in ("fp32", "int8")]
    rows = matrix(lambda target, precision: bundle_of(target.name, precision), pairs, reference, FRAMES)
    assert [(r.target, r.precision) for r in rows] == [(t.name, p) for t, p in pairs]
    for row in rows:
        exact, measured = row.precision == "fp32", row.measured
        assert measured is not None and measured.miou is not None, row
        assert measured.logits_max is not None and measured.logits_mean is not None, row
        assert measured.agreement >= (0.9999 if exact else 0.95), row
        assert measured.worst <= measured.agreement and measured.miou <= 1
        assert (measured.logits_max < 1e-3) == exact and measured.logits_mean <= measured.logits_max
        assert measured.infer_ms > 0
        assert row.ok == (measured.agreement >= row.expected)
        assert row.to_dict() == {
            "target": row.target, "precision": row.precision, **vars(measured), "expected": row.expected, "ok": row.ok,
        }  # fmt: skip


def test_a_bundle_of_another_network_does_not_agree(
    reference: Reference, bundle_of: Callable[[str, str], Path]
) -> None:
    other = Reference([(m + 1) % 8 for m in reference.classmaps], reference.logits, "someone else")
    measured = compare(bundle_of("openvino-cpu", "fp32"), other, FRAMES)
    assert measured.agreement == 0 and measured.miou == 0


def test_rows_that_cannot_be_measured_give_the_reason(reference: Reference) -> None:
    def build(target: Target, precision: str) -> Path:
        raise EdgesegError("It broke.")

    absent, broken = matrix(build, [split("openvino-npu:int8"), split("openvino-cpu:fp32")], reference, FRAMES)
    assert "finds no NPU" in absent.missing and absent.measured is None and not absent.ok
    assert absent.to_dict().keys() == {"target", "precision", "missing"}
    assert broken.missing == "It broke."


def test_probabilities_and_class_ids_have_no_logits_to_compare() -> None:
    shares = np.full((1, 8, 4, 6), 0.125, np.float32)
    probabilities = Reference.of_outputs([shares], "x", tiny.SPEC)
    assert probabilities.logits is None and probabilities.classmaps[0].shape == (tiny.HEIGHT, tiny.WIDTH)
    ids = Reference.of_outputs([np.zeros((1, tiny.HEIGHT, tiny.WIDTH), np.int64)], "x", tiny.SPEC)
    assert ids.logits is None


def test_the_verb(edgeseg: Callable[..., Any], network: Path, tmp_path: Path) -> None:
    for i, frame in enumerate(FRAMES):
        write_image(tmp_path / "frames" / f"{i}.png", frame)
    ran = edgeseg("parity", network, "--targets", "openvino-cpu:fp32,openvino-gpu:int8,tflite-cpu:dynamic",
                  "--frames", tmp_path / "frames", "--count", 3, "--calibration", tmp_path / "frames",
                  "--json", "-")  # fmt: skip
    assert ran.code == 2 and "different frames for calibration" in ran.err
    command = ("parity", network, "--targets", "openvino-cpu:fp32, tflite-cpu:dynamic", "--frames", tmp_path / "frames")
    ran = edgeseg(*command, "--count", 3, "--json", "-")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert result["frames"] == 3 and result["reference"].startswith("onnxruntime")
    assert [row["precision"] for row in result["rows"]] == ["fp32", "dynamic"]
    assert result["rows"][0]["agreement"] == 1
    assert "openvino-cpu:fp32" in ran.err and "100.00" in ran.err


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("openvino-cpu:int8", "INT8 needs calibration frames"),
        ("tflite-cpu:bf16", "Target tflite-cpu has no precision 'bf16'"),
        ("tflite:int8", "Did you mean 'tflite-cpu'"),
    ],
)
def test_options_that_the_verb_refuses(edgeseg: Callable[..., Any], network: Path, targets: str, message: str) -> None:
    ran = edgeseg("parity", network, "--targets", targets)
    assert ran.code == 2 and message in ran.err


def test_a_checkpoint_is_compared_with_torch(edgeseg: Callable[..., Any], tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs the extra edgeseg[train]")
    from edgeseg.recipe import NetConfig
    from edgeseg.training import checkpoint, nets

    torch.manual_seed(0)
    net = NetConfig("lite", width=0.25)
    model = nets.build(net, len(tiny.SPEC.classes))
    with torch.no_grad():
        model(torch.randn(4, 3, tiny.HEIGHT, tiny.WIDTH))
    path = checkpoint.save(tmp_path / "net.pt", model, net, tiny.SPEC)
    ran = edgeseg("parity", path, "--targets", "openvino-cpu:fp32,tflite-cpu:fp32", "--count", 2, "--json", "-")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert result["reference"].startswith("torch ")
    assert all(row["agreement"] > 0.999 and row["logits_max"] < 1e-4 for row in result["rows"])
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt"]
