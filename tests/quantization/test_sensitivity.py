"""The ranking of layers, checked against noise computed in another way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import OptionError

onnx = pytest.importorskip("onnx")

from edgeseg import onnx_graph  # noqa: E402
from edgeseg.quantization import schemes  # noqa: E402
from edgeseg.quantization.rounding import round_weights, scale_and_zero_point  # noqa: E402
from edgeseg.quantization.saturation import safe_scale  # noqa: E402
from edgeseg.quantization.sensitivity import quantizable_layers, rank  # noqa: E402

Run = Callable[..., Any]


def deployed(model: Path, out: Path) -> Path:
    out.write_bytes(onnx_graph.deploy_graph(onnx_graph.load(model), tiny.SPEC).model.SerializeToString())
    return out


@pytest.mark.parametrize("scheme", ["nncf", "qdq", "symmetric", "litert"])
def test_the_layer_that_int8_ruins_comes_first(fragile: Path, network: Path, tmp_path: Path, scheme: str) -> None:
    frames = tiny.frames(3, seed=1)
    sound = {row.layer: row for row in rank(deployed(network, tmp_path / "a.onnx"), frames, scheme)}
    broken = rank(deployed(fragile, tmp_path / "b.onnx"), frames, scheme)
    assert [row.operator for row in broken] == ["Conv"] * 3
    last = onnx_graph.layers(onnx.load(str(tmp_path / "b.onnx")))[-1].name
    assert broken[0].layer == last
    assert broken[0].sqnr_db < 10 < 25 < sound[last].sqnr_db
    # The others are as good as before, but for NNCF, whose minimum scale rounds the weights of small channels away.
    worse = {row.layer: sound[row.layer].sqnr_db - row.sqnr_db for row in broken[1:]}
    assert worse["t1"] == pytest.approx(0, abs=1)
    assert (15 < worse["t4"] < 30) if scheme == "nncf" else (abs(worse["t4"]) < 1)


def test_the_figure_is_the_sqnr_of_the_formula(network: Path, tmp_path: Path) -> None:
    """The last layer's noise by hand: its input from ONNX Runtime, rounded in numpy, times its weights in float64."""
    import onnxruntime
    from onnx import helper, numpy_helper

    path = deployed(network, tmp_path / "a.onnx")
    frames = tiny.frames(2, seed=2)
    model = onnx.load(str(path))
    conv = onnx_graph.layers(model)[-1]
    weights, bias = (
        numpy_helper.to_array(i) for name in conv.input[1:] for i in model.graph.initializer if i.name == name
    )
    model.graph.output.append(helper.make_tensor_value_info(conv.input[0], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = np.stack([session.run(None, {"frame": f[None]})[1][0] for f in frames]).astype(np.float64)
    scale = inputs.max() / 255  # behind a ReLU: the zero point is 0
    steps = safe_scale(weights, np.abs(weights).max((1, 2, 3), keepdims=True) / 127, 1)
    rounded = np.round(weights / steps) * steps

    def logits(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return np.einsum("nihw,oi->nohw", x, w[..., 0, 0].astype(np.float64)) + bias[:, None, None]

    true, noisy = logits(inputs, weights), logits(np.round(inputs / scale) * scale, rounded)
    expected = 10 * np.log10((true**2).sum() / ((true - noisy) ** 2).sum())
    by_layer = {row.layer: row.sqnr_db for row in rank(path, frames, "nncf")}
    assert by_layer[conv.name] == pytest.approx(expected, abs=0.05)


def test_the_minimum_weight_scale_is_that_of_nncf(fragile: Path, labeled: Path, tmp_path: Path) -> None:
    """The weights that NNCF stores for the rescaled layer are those of round_weights."""
    ov = pytest.importorskip("openvino")
    from edgeseg.calibration.frames import CalibrationSet
    from edgeseg.quantization.quantize import quantize

    path = deployed(fragile, tmp_path / "a.onnx")
    quantized = quantize(path, CalibrationSet.choose(labeled, 8).images(tiny.SPEC), "nncf", tmp_path, "mixed")
    stored = next(
        op for op in ov.Core().read_model(quantized).get_ops() if op.get_friendly_name() == "t4/WithoutBiases"
    )
    parts = [stored.input_value(1).get_node()]  # Multiply(Convert(int8), scale)
    scale = parts[0].input_value(1).get_node().data.astype(np.float64)
    while parts[-1].get_type_name() != "Constant":
        parts.append(parts[-1].input_value(0).get_node())
    model = onnx.load(str(path))
    conv = next(n for n in model.graph.node if n.name == "t4")
    weights = onnx.numpy_helper.to_array(next(i for i in model.graph.initializer if i.name == conv.input[1]))
    least = schemes.get("nncf").min_weight_scale
    expected = round_weights(weights, 0, least, 1)
    before = np.maximum(steps := np.abs(weights).max((1, 2, 3), keepdims=True) / 127, least * steps.max())
    assert scale == pytest.approx(safe_scale(weights, before, 1), rel=0.01)
    assert (np.abs(parts[-1].data * scale - expected) <= 0.02 * scale).mean() > 0.99


def test_the_output_of_the_last_layer_is_rounded_if_the_scheme_does_so(network: Path, tmp_path: Path) -> None:
    path = deployed(network, tmp_path / "a.onnx")
    frames = tiny.frames(2, seed=2)
    last = onnx_graph.layers(onnx.load(str(path)))[-1].name
    sqnr = {scheme: {r.layer: r.sqnr_db for r in rank(path, frames, scheme)}[last] for scheme in ("nncf", "qdq")}
    assert sqnr["qdq"] < sqnr["nncf"]


def test_layers_are_measured_independently(network: Path, tmp_path: Path) -> None:
    path = deployed(network, tmp_path / "a.onnx")
    frames = tiny.frames(2, seed=2)
    alone = [rank(path, frames, "nncf", lambda i, n, measure, j=j: measure() if i == j else None) for j in range(3)]
    together = rank(path, frames, "nncf")
    assert sorted(rows[0].sqnr_db for rows in alone) == [row.sqnr_db for row in together]


def test_quantizable_layers() -> None:
    """Sums and products of two tensors are; preprocessing, biases and other operators of the scheme are not."""
    net = tiny.Net()
    x = net.add("Add", net.conv("image", 3, 8, stride=2), net.constant(1.0))
    y = net.add("Mul", x, net.add("Sigmoid", x))
    y = net.add("Add", y, x)
    deploy = onnx_graph.deploy_graph(net.model(net.resize(net.conv(y, 8, 8, stride=2))), tiny.SPEC).model
    assert [n.op_type for n in quantizable_layers(deploy, schemes.get("qdq"))] == ["Conv", "Mul", "Add", "Conv"]
    assert [n.op_type for n in quantizable_layers(deploy, schemes.get("symmetric"))] == ["Conv", "Add", "Conv"]
    names = [n.name for n in deploy.graph.node]
    assert all(names) and len(set(names)) == len(names)


def test_a_network_without_layers() -> None:
    net = tiny.Net()
    model = net.model(net.add("Relu", "image"))
    with pytest.raises(OptionError, match="no layer that INT8 could apply to"):
        quantizable_layers(model, schemes.get("qdq"))


def test_node_names_are_unique_and_given_ones_stay(tmp_path: Path) -> None:
    model = onnx.load(str(tiny.network(tmp_path / "n.onnx")))
    convs = [n for n in model.graph.node if n.op_type == "Conv"]
    convs[0].name, convs[1].name, convs[2].name = "stem", "stem", "logits"
    deploy = onnx_graph.deploy_graph(model, tiny.SPEC).model
    names = [n.name for n in deploy.graph.node]
    assert len(set(names)) == len(names)
    assert "stem" in names
    assert next(n for n in deploy.graph.node if n.name == "logits").op_type == "Cast"  # schemes exclude it by name


@given(low=st.floats(-1e6, 1e6), span=st.floats(0, 1e6), symmetric=st.booleans())
def test_integers_cover_the_range_and_represent_zero(low: float, span: float, symmetric: bool) -> None:
    scale, zero = scale_and_zero_point(low, low + span, symmetric)
    first, last = (-127, 127) if symmetric else (0, 255)
    assert first <= zero <= last
    assert (first - zero) * scale <= low + 0.51 * scale
    assert (last - zero) * scale >= low + span - 0.51 * scale


@given(st.integers(0, 1), st.integers(0, 10_000))
def test_rounding_moves_weights_by_half_a_step_at_most(axis: int, seed: int) -> None:
    w = np.random.default_rng(seed).normal(size=(3, 4, 2, 2)).astype(np.float32)
    others = tuple(i for i in range(4) if i != axis)
    error = np.abs(round_weights(w, axis) - w).max(others)
    assert (error <= np.abs(w).max(others) / 127 * 0.5001).all()


def test_the_command(edgeseg: Run, fragile: Path, labeled: Path, tmp_path: Path) -> None:
    import json

    ran = edgeseg("sensitivity", fragile, "--calibration", labeled, "--json", tmp_path / "s.json")
    assert ran.code == 0, ran.err
    rows = json.loads((tmp_path / "s.json").read_text())["layers"]
    assert [row["sqnr_db"] for row in rows] == sorted(row["sqnr_db"] for row in rows)
    assert all(row["layer"] in ran.out for row in rows)
