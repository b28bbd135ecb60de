"""What OpenVINO refuses is told by the names that the layers have in the ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

pytest.importorskip("openvino")
onnx = pytest.importorskip("onnx")

from edgeseg.backends import openvino  # noqa: E402
from edgeseg.errors import EdgesegError  # noqa: E402
from edgeseg.precision import Precision  # noqa: E402
from edgeseg.target import Target  # noqa: E402


def graph(path: Path, *nodes: tuple[str, str, tuple[int, ...]]) -> Path:
    """Nodes (operator, name, shape of its second input), one after the other."""
    net, x = tiny.Net(), "image"
    for op, name, shape in nodes:
        x = net.add(op, x, *([net.constant(np.zeros(shape))] if shape else []))
        net.nodes[-1].name = name
    entry = onnx.helper.make_tensor_value_info("image", 1, [1, 3, 8, 8])
    made = onnx.helper.make_graph(net.nodes, "g", [entry], [onnx.ValueInfoProto(name=x)], net.weights)
    onnx.save(onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([("Relu", "/a", ()), ("Det", "/head/Det", ())], r"it has no Det \(/head/Det\)\."),
        ([("Det", f"/d{i}", ()) for i in range(5)], r"it has no Det \(/d0, /d1, /d2 and 2 more\)\."),
        ([("Conv", "/body/conv1", (4, 5, 3, 3))], r"Conv /body/conv1: Data batch channel count \(3\) does not match"),
        ([("Add", "/body/Add_3", (1, 4, 8, 8))], r"Add /body/Add_3: Argument shapes are inconsistent\."),
    ],
)
def test_the_refused_layer_is_named(
    nodes: list[tuple[str, str, tuple[int, ...]]], message: str, tmp_path: Path
) -> None:
    path = graph(tmp_path / "net.onnx", *nodes)
    with pytest.raises(EdgesegError, match=f"OpenVINO cannot compile the network: {message}"):
        openvino.compile(path, tmp_path, Target.load("openvino-cpu"), Precision.FP32)


def test_another_message_is_told_by_its_last_line() -> None:
    assert (
        openvino.refused_layer("Exception from a:1:\n\nthe weights are gone\n", Path("x.xml")) == "the weights are gone"
    )
