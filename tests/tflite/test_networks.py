"""Whole networks as TFLite: equal to ONNX Runtime, without stray transposes, and integers throughout in INT8."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgeseg.bundle import Bundle
from edgeseg.errors import EdgesegError, MissingPackage, OptionError
from edgeseg.spec import Spec
from edgeseg.target import Target

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

from edgeseg.compile import compile_model, spec_of  # noqa: E402
from edgeseg.onnx_graph import deploy_graph, load  # noqa: E402
from edgeseg.tflite.convert import convert  # noqa: E402
from edgeseg.tflite.flatbuffer import schema  # noqa: E402

STREET = Path(__file__).parents[2] / "models" / "street" / "street.onnx"


def contents(data: bytes) -> list[tuple[str, list[str]]]:
    """Each operator's name and the types of its tensors, outputs first."""
    s = schema()
    model = s.ModelT.InitFromPackedBuf(data, 0)
    names = {v: k for k, v in vars(s.BuiltinOperator).items() if isinstance(v, int)}
    types = {v: k for k, v in vars(s.TensorType).items() if isinstance(v, int)}
    graph = model.subgraphs[0]
    return [
        (names[model.operatorCodes[op.opcodeIndex].builtinCode],
         [types[graph.tensors[i].type] for i in (*op.outputs, *op.inputs)])
        for op in graph.operators
    ]  # fmt: skip


def answer(data: bytes, frame: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    network = Interpreter(model_content=data, num_threads=2)
    network.allocate_tensors()
    network.set_tensor(network.get_input_details()[0]["index"], frame[None])
    network.invoke()
    return np.asarray(network.get_tensor(network.get_output_details()[0]["index"]).transpose(0, 3, 1, 2))


def proven(model: Any, spec: Spec) -> Counter[str]:
    """Convert a network's deploy graph, compare with ONNX Runtime; the operators of the file."""
    ready = deploy_graph(model, spec).model
    frame = tiny.frames(1, height=spec.height, width=spec.width)[0]
    expected = ort.InferenceSession(ready.SerializeToString()).run(None, {"frame": frame[None]})[0]
    data = convert(ready)
    np.testing.assert_allclose(answer(data, frame), expected, atol=1e-4 * max(1, np.abs(expected).max()))
    return Counter(name for name, _ in contents(data))


def test_the_street_student() -> None:
    spec, _ = spec_of(STREET, {})
    found = proven(load(STREET), spec)
    assert not found["TRANSPOSE"] and found["CONV_2D"] == 24


def _lraspp() -> Any:
    import torchvision

    return torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=8)


def _smp(name: str, encoder: str) -> Any:
    import segmentation_models_pytorch as smp

    return smp.create_model(name, encoder, encoder_weights=None, classes=8)


def _lite() -> Any:
    from edgeseg.recipe import NetConfig
    from edgeseg.training import nets

    return nets.build(NetConfig("lite", "tu-tf_efficientnet_lite0", width=2.0), 8)


FAMILIES: dict[str, tuple[Callable[[], Any], bool]] = {
    "lite": (_lite, True),
    "LR-ASPP": (_lraspp, True),
    "FPN-MobileNetV3": (lambda: _smp("fpn", "tu-mobilenetv3_large_100"), True),
    "DeepLabV3+": (lambda: _smp("deeplabv3plus", "tu-tf_efficientnet_lite0"), True),
    "SegFormer": (lambda: _smp("segformer", "mit_b0"), False),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_networks_of_many_families(name: str) -> None:
    torch = pytest.importorskip("torch", reason="the networks come from torch")
    import edgeseg.training  # noqa: F401  makes torchvision importable beside a CPU torch
    from edgeseg.training.onnx_export import to_onnx

    build, convolutional = FAMILIES[name]

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.network = build()

        def forward(self, image: Any) -> Any:
            out = self.network(image)
            return out["out"] if isinstance(out, dict) else out

    found = proven(onnx.load_from_string(to_onnx(Logits().eval(), tiny.SPEC)), tiny.SPEC)
    assert not (convolutional and found["TRANSPOSE"])
    if not convolutional:  # attention moves its heads: three tensors of each of eight blocks
        assert found["TRANSPOSE"] <= 24 and found["GELU"] == 8 and found["FULLY_CONNECTED"] > 40


# INT8


@pytest.fixture(scope="module")
def quantized(bundle_of: Callable[[str, str], Path]) -> dict[str, bytes]:
    return {p: (bundle_of("tflite-cpu", p) / "model.tflite").read_bytes() for p in ("fp32", "fp16", "dynamic", "int8")}


def test_int8_computes_with_integers_from_the_frame_to_the_logits(quantized: dict[str, bytes]) -> None:
    found = contents(quantized["int8"])
    assert found[0] == ("QUANTIZE", ["INT8", "UINT8"]), "the frame is not cast to float and back"
    assert found[-1] == ("DEQUANTIZE", ["FLOAT32", "INT8"])
    assert {t for _, types in found[1:-1] for t in types} == {"INT8", "INT32"}


def test_dynamic_range_has_int8_weights_and_float_activations(quantized: dict[str, bytes]) -> None:
    convolutions = [types for name, types in contents(quantized["dynamic"]) if name == "CONV_2D"]
    assert convolutions and all(t[:3] == ["FLOAT32", "FLOAT32", "INT8"] for t in convolutions)


def test_fp16_stores_float16_weights(quantized: dict[str, bytes]) -> None:
    assert ("DEQUANTIZE", ["FLOAT32", "FLOAT16"]) in contents(quantized["fp16"])


def test_normalizations_stay_float_in_int8() -> None:
    from edgeseg.tflite.quantize import full

    net = tiny.Net()
    x = net.add("Relu", net.conv("image", 3, 8, stride=4))
    shape = net.constant([0, 2, -1], kind=np.int64)
    ones, zeros = net.constant(np.ones(2)), net.constant(np.zeros(2))
    norm = net.add("InstanceNormalization", net.add("Reshape", x, shape), ones, zeros)
    back = net.add("Reshape", norm, net.constant([1, 8, 16, 24], kind=np.int64))
    ready = deploy_graph(net.model(net.conv(back, 8, 8)), tiny.SPEC).model
    data = convert(ready)
    small = full(data, [frame[None] for frame in tiny.frames(16)])
    kinds = {name: types[0] for name, types in contents(small)}
    assert (kinds["MEAN"], kinds["RSQRT"], kinds["SUB"], kinds["CONV_2D"]) == ("FLOAT32", "FLOAT32", "FLOAT32", "INT8")
    frame = tiny.frames(1, seed=3)[0]
    away = np.abs(answer(small, frame) - answer(data, frame))
    assert away.max() < 0.1 * np.abs(answer(data, frame)).max()


# What is refused


def test_an_operator_that_tflite_lacks(tmp_path: Path) -> None:
    net = tiny.Net()
    out = net.add("Add", net.head("image", 8), net.constant(0.0))
    onnx.save(net.model(net.add("Acosh", out), spec=tiny.SPEC), str(tmp_path / "odd.onnx"))
    with pytest.raises(EdgesegError) as caught:
        compile_model(tmp_path / "odd.onnx", tmp_path / "out", Target.load("tflite-cpu"), "fp32", spec=tiny.SPEC,
                      frames=tiny.frames(1))  # fmt: skip
    assert "operator Acosh (node" in caught.value.what and "onnxruntime-cpu" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_int8_without_calibration(network: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="INT8 needs calibration frames"):
        compile_model(
            network, tmp_path / "out", Target.load("tflite-cpu"), "int8", spec=tiny.SPEC, frames=tiny.frames(1)
        )


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    for package in packages:
        for name in [n for n in sys.modules if n == package or n.startswith(f"{package}.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)


def test_without_litert(bundle_of: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeseg.backends import tflite

    loaded = Bundle.load(bundle_of("tflite-cpu", "fp32"))
    without(monkeypatch, "ai_edge_litert", "tflite_runtime")
    assert "pip install 'edgeseg[tflite]'" in tflite.probe()
    with pytest.raises(MissingPackage, match=r"ai-edge-litert.*\n.*edgeseg\[tflite\]"):
        tflite.open(loaded, "latency")
    with pytest.raises(MissingPackage, match=r"Writing TFLite needs the package ai-edge-litert"):
        convert(load(STREET))


def test_tflite_runtime_is_the_fallback(bundle_of: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from ai_edge_litert import interpreter

    from edgeseg.backends import tflite

    loaded = Bundle.load(bundle_of("tflite-cpu", "fp32"))
    without(monkeypatch, "ai_edge_litert")
    monkeypatch.setitem(sys.modules, "tflite_runtime", type(sys)("tflite_runtime"))
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", interpreter)
    assert tflite.probe() == ""
    engine = tflite.open(loaded, "latency")
    assert engine.inputs(0)["frame"].shape == (tiny.HEIGHT, tiny.WIDTH, 3)
    engine.close()


def test_without_the_quantizer(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeseg.tflite.quantize import dynamic

    without(monkeypatch, "ai_edge_quantizer")
    with pytest.raises(MissingPackage, match=r"ai-edge-quantizer.*\n.*edgeseg\[compress,tflite\]"):
        dynamic(b"")
