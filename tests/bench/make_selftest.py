"""Write edgeseg/bench/selftest.onnx, the network of `edgeseg doctor`: python tests/bench/make_selftest.py"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny

from edgeseg.onnx_graph.deploy import deploy_graph
from edgeseg.spec import Spec


def model() -> bytes:
    """The deploy graph: uint8 frames of 48x32 in, logits of 3 classes at stride 4 out."""
    spec = Spec(32, 48, ("a", "b", "c"))
    net = tiny.Net(seed=3)
    network = net.model(net.resize(net.head("image", 3)), shape=(1, 3, 32, 48), spec=spec)
    return bytes(deploy_graph(network, spec, "").model.SerializeToString())


if __name__ == "__main__":
    path = Path(__file__).parents[2] / "edgeseg" / "bench" / "selftest.onnx"
    onnx.load_from_string(model())
    path.write_bytes(model())
