"""The parity matrix: every backend that is here, against the network itself, on the same frames."""

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
    assert [(r["target"], r["precision"]) for r in rows] == [(t.name, p) for t, p in pairs]
    for row in rows:
        exact = row["precision"] == "fp32"
        assert row["agreement"] >= (0.9999 if exact else 0.95), row
        assert row["worst"] <= row["agreement"] and row["miou"] <= 1
        assert (row["logits_max"] < 1e-3) == exact and row["logits_mean"] <= row["logits_max"]
        assert row["infer_ms"] > 0
        assert row["ok"] == (row["agreement"] >= row["expected"])


def test_a_bundle_of_another_network_does_not_agree(
    reference: Reference, bundle_of: Callable[[str, str], Path]
) -> None:
    other = Reference([(m + 1) % 8 for m in reference.classmaps], reference.logits, "someone else")
    found = compare(bundle_of("openvino-cpu", "fp32"), other, FRAMES)
    assert found["agreement"] == 0 and found["miou"] == 0


def test_what_cannot_run_says_why(reference: Reference) -> None:
    def build(target: Target, precision: str) -> Path:
        raise EdgesegError("It broke.")

    absent, broken = matrix(build, [split("openvino-npu:int8"), split("openvino-cpu:fp32")], reference, FRAMES)
    assert "finds no NPU" in absent["missing"] and "agreement" not in absent
    assert broken["missing"] == "It broke."


def test_probabilities_and_class_ids_have_no_logits_to_compare() -> None:
    shares = np.full((1, 8, 4, 6), 0.125, np.float32)
    found = Reference.of_outputs([shares], "x", tiny.SPEC)
    assert found.logits is None and found.classmaps[0].shape == (tiny.HEIGHT, tiny.WIDTH)
    ids = Reference.of_outputs([np.zeros((1, tiny.HEIGHT, tiny.WIDTH), np.int64)], "x", tiny.SPEC)
    assert ids.logits is None


def test_the_verb(edgeseg: Callable[..., Any], network: Path, tmp_path: Path) -> None:
    for i, frame in enumerate(FRAMES):
        write_image(tmp_path / "frames" / f"{i}.png", frame)
    ran = edgeseg("parity", network, "--targets", "openvino-cpu:fp32,openvino-gpu:int8,tflite-cpu:dynamic",
                  "--frames", tmp_path / "frames", "--count", 3, "--calibration", tmp_path / "frames",
                  "--json", "-")  # fmt: skip
    assert ran.code == 2 and "different frames for calibration" in ran.err
    words = ("parity", network, "--targets", "openvino-cpu:fp32, tflite-cpu:dynamic", "--frames", tmp_path / "frames")
    ran = edgeseg(*words, "--count", 3, "--json", "-")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["frames"] == 3 and told["reference"].startswith("onnxruntime")
    assert [row["precision"] for row in told["rows"]] == ["fp32", "dynamic"]
    assert told["rows"][0]["agreement"] == 1
    assert "openvino-cpu:fp32" in ran.err and "100.00" in ran.err


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("openvino-cpu:int8", "INT8 needs calibration frames"),
        ("tflite-cpu:bf16", "Target tflite-cpu has no precision 'bf16'"),
        ("tflite:int8", "Did you mean 'tflite-cpu'"),
    ],
)
def test_what_the_verb_refuses(edgeseg: Callable[..., Any], network: Path, targets: str, message: str) -> None:
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
    told = json.loads(ran.out)
    assert told["reference"].startswith("torch ")
    assert all(row["agreement"] > 0.999 and row["logits_max"] < 1e-4 for row in told["rows"])
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt"]
