"""Layers excluded from INT8: they stay float on every backend, and accuracy comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgeseg.bundle import Bundle
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import compile_model
from edgeseg.errors import EdgesegError, OptionError
from edgeseg.quantization import schemes
from edgeseg.quantization.quantize import quantize
from edgeseg.recipe import PTQ
from edgeseg.target import Target

onnx = pytest.importorskip("onnx")

LAST = "t6"  # of tiny.network, and so of the fragile one


def int8(model: Path, out: Path, target: Target | str, data: Path, *excluded: str, precision: str = "int8") -> Bundle:
    profile = Target.load(target) if isinstance(target, str) else target
    frames, chosen = tiny.frames(4, seed=1), CalibrationSet.choose(data, 10)
    ptq = PTQ() if profile.quantizer == "entropy" else PTQ("minmax")
    return compile_model(
        model, out, profile, precision, spec=tiny.SPEC, frames=frames, calibration=chosen, excluded=excluded,
        ptq=ptq, allow_loss=True,
    )  # fmt: skip


def agreement_of(bundle: Bundle) -> float:
    assert bundle.manifest.parity is not None
    return bundle.manifest.parity.agreement


@pytest.mark.parametrize("target", ["openvino-cpu", "onnxruntime-cpu", "jetson-orin", "tflite-cpu"])
def test_excluding_one_layer_repairs_a_network_that_int8_ruins(
    fragile: Path, labeled: Path, tmp_path: Path, target: str
) -> None:
    ruined = int8(fragile, tmp_path / "all", target, labeled)
    repaired = int8(fragile, tmp_path / "excluded", target, labeled, LAST)
    agreement = [agreement_of(bundle) for bundle in (ruined, repaired)]
    assert agreement[0] < 0.85 < 0.94 < agreement[1], agreement
    assert (ruined.manifest.kept, repaired.manifest.kept) == ((), (LAST,))


def test_the_others_are_still_int8(fragile: Path, labeled: Path, tmp_path: Path) -> None:
    from onnx import numpy_helper

    bundle = int8(fragile, tmp_path / "out", "onnxruntime-cpu", labeled, LAST)
    model = onnx.load(str(bundle.path / "model.onnx"))
    kinds = {i.name: str(numpy_helper.to_array(i).dtype) for i in model.graph.initializer}
    producers = {n.output[0]: n for n in model.graph.node}
    inputs = {
        n.name: [producers[i].op_type if i in producers else kinds[i] for i in n.input[:2]]
        for n in model.graph.node
        if n.op_type == "Conv"
    }
    # The layer before it would round its output, so it is float, too, but reads INT8.
    assert inputs == {
        "t1": ["DequantizeLinear", "DequantizeLinear"],
        "t4": ["DequantizeLinear", "float32"],
        LAST: ["Relu", "float32"],
    }


def test_an_excluded_layer_reads_float_where_others_read_int8(labeled: Path, tmp_path: Path) -> None:
    """A branch: one reader is excluded, the other is INT8. ONNX Runtime's quantizer gives both the same pair."""
    net = tiny.Net()
    x = net.add("Relu", net.conv("image", 3, 8, stride=2))
    y = net.add("Relu", net.add("Add", net.conv(x, 8, 8), net.conv(x, 8, 8)))
    path = tmp_path / "net.onnx"
    onnx.save(net.model(net.resize(net.conv(y, 8, 8, stride=2)), spec=tiny.SPEC), str(path))
    bundle = int8(path, tmp_path / "out", "onnxruntime-cpu", labeled, "t2")
    model = onnx.load(str(bundle.path / "model.onnx"))
    producers = {n.output[0]: n.op_type for n in model.graph.node}
    readers = {n.name: producers[n.input[0]] for n in model.graph.node if n.op_type == "Conv"}
    assert readers["t2"] == "Relu"
    assert readers["t3"] == "DequantizeLinear"
    assert agreement_of(bundle) > 0.9


def test_the_layer_before_an_excluded_one_stays_float_in_tflite(fragile: Path, labeled: Path, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    from edgeseg.tflite.flatbuffer import schema, unpack

    bundle = int8(fragile, tmp_path / "out", "tflite-cpu", labeled, LAST)
    model, codes = unpack((bundle.path / "model.tflite").read_bytes()), schema()
    graph = model.subgraphs[0]
    convs = [
        op for op in graph.operators if model.operatorCodes[op.opcodeIndex].builtinCode == codes.BuiltinOperator.CONV_2D
    ]
    names = {codes.TensorType.INT8: "int8", codes.TensorType.FLOAT32: "float32"}
    tensors = graph.tensors
    kinds = {tensors[op.outputs[0]].name.decode(): names[tensors[op.inputs[0]].type] for op in convs}
    # The layer before it computes its input and is float, too. The first is INT8 as before.
    assert kinds == {"image": "int8", "t1": "int8", "t4/float": "float32", "logits": "float32"}
    network = Interpreter(str(bundle.path / "model.tflite"))
    assert [*network.get_signature_list()["serving_default"]["outputs"]] == ["logits"]


@pytest.mark.parametrize("scheme", sorted(set(schemes.names()) - {"entropy"}))
def test_with_every_layer_excluded_it_is_the_float_network(
    network: Path, labeled: Path, tmp_path: Path, scheme: str
) -> None:
    target = {"nncf": "openvino-cpu", "qdq": "onnxruntime-cpu", "symmetric": "jetson-orin", "litert": "tflite-cpu"}
    bundle = int8(network, tmp_path / "out", target[scheme], labeled, "t1", "t4", LAST)
    assert bundle.manifest.parity is not None
    assert bundle.manifest.parity.worst > (0.998 if scheme == "litert" else 0.999)  # its normalization is INT8


def test_a_convolution_without_bias_and_a_residual_sum(labeled: Path, tmp_path: Path) -> None:
    """OpenVINO has a single operator for the convolution; sums have names of their own."""
    net = tiny.Net()
    x = net.add("Relu", net.conv("image", 3, 8, stride=2))
    y = net.add("Conv", x, net.constant(net.random.normal(0, 0.1, (8, 8, 3, 3))), pads=[1] * 4)
    x = net.add("Relu", net.add("Add", x, y))
    path = tmp_path / "net.onnx"
    onnx.save(net.model(net.resize(net.conv(x, 8, 8, stride=2)), spec=tiny.SPEC), str(path))
    for name in ("t2", "t3"):
        bundle = int8(path, tmp_path / name, "openvino-cpu", labeled, name)
        assert bundle.manifest.kept == (name,)
        assert agreement_of(bundle) > 0.9


def test_a_layer_that_openvino_does_not_have(network: Path, tmp_path: Path) -> None:
    from edgeseg import onnx_graph

    deploy = tmp_path / "deploy.onnx"
    deploy.write_bytes(onnx_graph.deploy_graph(onnx_graph.load(network), tiny.SPEC).model.SerializeToString())
    with pytest.raises(EdgesegError, match="OpenVINO's graph has no layer 't99'"):
        quantize(deploy, tiny.frames(8), "nncf", tmp_path, "mixed", ["t99"])


@pytest.mark.parametrize(
    ("excluded", "precision", "message"),
    [
        ("t66", "int8", r"no layer 't66'.\nDid you mean 't6'\? edgeseg sensitivity .* its 3 layers"),
        ("t2", "int8", "no layer 't2'"),
        ("pre_Mul", "int8", "no layer 'pre_Mul'"),
        ("t6", "fp16", r"Layers to exclude were given for fp16.\nOnly INT8 has any"),
    ],
)
def test_layers_that_cannot_be_excluded(
    network: Path, labeled: Path, tmp_path: Path, excluded: str, precision: str, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        int8(network, tmp_path / "out", "openvino-cpu", labeled, excluded, precision=precision)
    assert not (tmp_path / "out").exists()


def test_the_entropy_calibrator_refuses_excluded_layers(network: Path, labeled: Path, tmp_path: Path) -> None:
    profile = Target.load("jetson-orin").calibrated_on_device()
    with pytest.raises(OptionError, match="own calibrator chooses each layer's precision"):
        int8(network, tmp_path / "out", profile, labeled, LAST)


def test_the_option(edgeseg: Callable[..., Any], network: Path, labeled: Path, tmp_path: Path) -> None:
    words = ("compile", network, "-t", "onnxruntime-cpu", "-p", "int8", "--calibration", labeled, "-o", tmp_path / "o")
    ran = edgeseg(*words, "--exclude", "t6", "--exclude", "t1")
    assert ran.code == 0, ran.err
    assert "t6, t1" in ran.out
    assert Bundle.load(tmp_path / "o").manifest.kept == ("t6", "t1")
    ran = edgeseg(*words, "--exclude", "t6_conv")
    assert ran.code == 2
    assert "Did you mean 't6'?" in ran.err
