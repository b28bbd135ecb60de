"""Equalization repairs INT8 and changes nothing in float; bias correction restores mean outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import compile_model
from edgeseg.recipe import PTQ
from edgeseg.target import Target

onnx = pytest.importorskip("onnx")

from onnx import numpy_helper  # noqa: E402

from edgeseg import onnx_graph  # noqa: E402
from edgeseg.quantization.equalization import correct_biases, equalize  # noqa: E402
from edgeseg.quantization.rounding import round_weights  # noqa: E402
from edgeseg.quantization.tensors import run_graph, tensor_values  # noqa: E402


def deployed(model: Any) -> Any:
    return onnx_graph.deploy_graph(model, tiny.SPEC).model


def copy(model: Any) -> Any:
    return onnx.ModelProto.FromString(model.SerializeToString())


def logits(model: Any, frames: list[np.ndarray]) -> np.ndarray:
    return np.stack([row[0] for row in run_graph(model, frames)])


def uneven(net: tiny.Net, count: int) -> str:
    """Weights of a 3x3 convolution from 8 to 8 channels whose outputs differ a thousandfold."""
    kernel = net.random.normal(0, 0.1, (8, 8, 3, 3)) if count == 8 else net.random.normal(0, 0.3, (8, count, 3, 3))
    return net.constant(kernel * np.geomspace(1, 1000, 8)[:, None, None, None])


def through(*ops: str, group: int = 1, **attributes: Any) -> Any:
    """Conv (uneven channels) -> ops -> Conv of `group` groups -> head, as a deploy graph."""
    net = tiny.Net(3)
    x = net.conv(net.add("Relu", net.conv("image", 3, 8, stride=2)), 8, 8, weight=uneven(net, 8))
    for op in ops:
        x = net.add(op, x, **attributes)
    into = 8 // group
    weight = net.random.normal(0, 0.1, (8, into, 3, 3)) / np.tile(np.geomspace(1, 1000, 8)[:into], 1)[:, None, None]
    x = net.add("Conv", x, net.constant(weight), pads=[1] * 4, group=group)
    return deployed(net.model(net.resize(net.conv(x, 8, 8, size=1, stride=2)), spec=tiny.SPEC))


@pytest.mark.parametrize(
    ("ops", "group", "pairs"),
    [
        (("Relu",), 1, 3),
        ((), 1, 3),
        (("LeakyRelu",), 8, 3),
        (("Relu",), 2, 3),
        (("Relu", "GlobalAveragePool"), 1, 0),
        (("Sigmoid",), 1, 2),
        (("HardSwish",), 1, 2),
    ],
)
def test_the_float_network_computes_the_same(ops: tuple[str, ...], group: int, pairs: int) -> None:
    if "GlobalAveragePool" in ops:
        net = tiny.Net(3)
        x = net.add("GlobalAveragePool", net.add("Relu", net.conv("image", 3, 8, stride=2, weight=uneven(net, 3))))
        y = net.conv("image", 3, 8, stride=2)
        model = deployed(net.model(net.resize(net.add("Add", net.conv(x, 8, 8, size=1), y)), spec=tiny.SPEC))
        pairs = 1
    else:
        model = through(*ops, group=group)
    frames, equalized = tiny.frames(3), copy(model)
    assert equalize(equalized, tiny.frames(4, seed=5)) == pairs
    before, after = logits(model, frames), logits(equalized, frames)
    np.testing.assert_allclose(after, before, atol=1e-5 * np.abs(before).max())
    changed = [
        not np.array_equal(numpy_helper.to_array(a), numpy_helper.to_array(b))
        for a, b in zip(model.graph.initializer, equalized.graph.initializer)
    ]
    assert sum(changed) >= 2


def test_a_clipped_or_shared_tensor_is_left_alone() -> None:
    net = tiny.Net(1)
    x = net.add("Clip", net.conv("image", 3, 8, stride=2), net.constant(0.0), net.constant(6.0))  # ReLU6
    y = net.conv(x, 8, 8)
    z = net.add("Relu", net.add("Add", net.conv(y, 8, 8), y))  # y has two readers
    model = deployed(net.model(net.resize(net.conv(z, 8, 8, stride=2)), spec=tiny.SPEC))
    equalized = copy(model)
    assert equalize(equalized, tiny.frames(2)) == 0
    assert equalized == model


def test_channel_ranges_become_similar() -> None:
    model = through("Relu")
    frames = tiny.frames(4, seed=5)
    equalized = copy(model)
    equalize(equalized, frames)
    name = [n for n in model.graph.node if n.op_type == "Conv"][2].input[0]

    def ratio(m: Any) -> float:
        """Of the largest range of a channel to the smallest."""
        maxima = np.max([row[0].max((0, 2, 3)) for row in tensor_values(m, frames, [name])], 0)
        return float(maxima.max() / maxima[maxima > 0].min())

    assert ratio(equalized) < ratio(model) / 20


@pytest.mark.parametrize("target", ["openvino-cpu", "onnxruntime-cpu", "jetson-orin", "tflite-cpu"])
def test_equalizing_repairs_a_network_that_int8_ruins(
    fragile: Path, network: Path, labeled: Path, tmp_path: Path, target: str
) -> None:
    """In float it is the tiny network; equalized, INT8 costs it no more than the tiny one."""

    def agreement(model: Path, ptq: PTQ) -> float:
        bundle = compile_model(
            model, tmp_path / "out", Target.load(target), "int8", spec=tiny.SPEC,
            frames=tiny.frames(4, seed=1), calibration=CalibrationSet.choose(labeled, 10), ptq=ptq, allow_loss=True,
        )  # fmt: skip
        assert bundle.manifest.parity is not None
        return bundle.manifest.parity.agreement

    plain, equalized = PTQ("minmax"), PTQ("minmax", equalize=True)
    ruined, repaired = agreement(fragile, plain), agreement(fragile, equalized)
    assert ruined < 0.85 < 0.9 < repaired
    assert repaired > agreement(network, plain) - 0.03


def test_corrected_biases_compensate_for_rounded_weights() -> None:
    """The mean of a convolution with rounded weights, corrected, is the float one's; without padding exactly."""
    net = tiny.Net(2)
    x = net.add("Relu", net.conv(net.conv("image", 3, 8, stride=2), 8, 8, stride=2))
    coarse = net.constant(net.random.normal(0, 0.2, (8, 8, 1, 1)) + net.random.choice([0, 30], (8, 8, 1, 1)))
    model = deployed(net.model(net.resize(net.conv(x, 8, 8, size=1, weight=coarse)), spec=tiny.SPEC))
    frames = tiny.frames(6)

    def rounded(m: Any) -> Any:
        result = copy(m)
        conv = [n for n in result.graph.node if n.op_type == "Conv"][-1]
        weight = next(i for i in result.graph.initializer if i.name == conv.input[1])
        weight.CopyFrom(numpy_helper.from_array(round_weights(numpy_helper.to_array(weight), 0), weight.name))
        return result

    corrected = copy(model)
    correct_biases(corrected, frames, excluded=[n.name for n in model.graph.node if n.op_type == "Conv"][:-1])
    expected = logits(model, frames).mean((0, 1, 3, 4))
    uncorrected_error = np.abs(logits(rounded(model), frames).mean((0, 1, 3, 4)) - expected).max()
    corrected_error = np.abs(logits(rounded(corrected), frames).mean((0, 1, 3, 4)) - expected).max()
    assert uncorrected_error > 0.05 and corrected_error < uncorrected_error / 100


def test_excluded_layers_keep_their_biases(network: Path) -> None:
    model = deployed(onnx_graph.load(network))
    convs = [n.name for n in model.graph.node if n.op_type == "Conv"]
    prepared = copy(model)
    correct_biases(prepared, tiny.frames(2), excluded=convs[1:])
    biases = [[n.input[2] for n in m.graph.node if n.op_type == "Conv"] for m in (model, prepared)]
    assert [a == b for a, b in zip(*biases)] == [False, True, True]
