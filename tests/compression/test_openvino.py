"""INT8 on OpenVINO is what runs, not only what the file says."""

from __future__ import annotations

from pathlib import Path

import pytest
import qdq_corpus
import tiny

from edgeseg.compile import compile_model
from edgeseg.compression.calibration import Calibration
from edgeseg.target import Target

onnx = pytest.importorskip("onnx")
pytest.importorskip("nncf")


def test_depthwise_convolutions_run_in_int8(labelled: Path, tmp_path: Path) -> None:
    """Their weights come through a Reshape in OpenVINO; a rounding in front of it would leave them in float."""
    net, spec = qdq_corpus.Net().body("depthwise", "residual", "depthwise"), qdq_corpus.SPEC
    onnx.save(net, str(tmp_path / "net.onnx"))
    bundle = compile_model(
        tmp_path / "net.onnx",
        tmp_path / "out",
        Target.load("openvino-cpu"),
        "int8",
        spec=spec,
        frames=tiny.frames(2, 0, spec.height, spec.width),
        calibration=Calibration.choose(labelled, 8),
    )
    convolutions = sum(node.op_type == "Conv" for node in net.graph.node)
    assert convolutions == 7
    found = tiny.executed(bundle.path / "model.xml")
    assert found.total() == convolutions and set(found) <= {"u8", "i8"}, found
