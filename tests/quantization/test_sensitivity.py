"""The ranking of layers, against noise that is computed another way."""

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
from edgeseg.quantization.sensitivity import candidates, grid, rank, round_weights  # noqa: E402

Run = Callable[..., Any]


def deployed(model: Path, out: Path) -> Path:
    out.write_bytes(onnx_graph.deploy_graph(onnx_graph.load(model), tiny.SPEC).model.SerializeToString())
    return out


@pytest.mark.parametrize("rules", ["nncf", "qdq", "symmetric", "litert"])
def test_the_layer_that_int8_ruins_comes_first(fragile: Path, network: Path, tmp_path: Path, rules: str) -> None:
    frames = tiny.frames(3, seed=1)
    sound = {row.layer: row for row in rank(deployed(network, tmp_path / "a.onnx"), frames, rules)}
    broken = rank(deployed(fragile, tmp_path / "b.onnx"), frames, rules)
    assert [row.operator for row in broken] == ["Conv"] * 3
    last = onnx_graph.layers(onnx.load(str(tmp_path / "b.onnx")))[-1].name
    assert broken[0].layer == last
    assert broken[0].sqnr_db < 10 < 25 < sound[last].sqnr_db
    # The others are as good as they were, but for the small channels' weights where NNCF's floor of scales rounds them.
    worse = {row.layer: sound[row.layer].sqnr_db - row.sqnr_db for row in broken[1:]}
    assert worse["t1"] == pytest.approx(0, abs=1)
    assert (15 < worse["t4"] < 30) if rules == "nncf" else (abs(worse["t4"]) < 1)


def test_the_figure_is_the_sqnr_of_its_formula(network: Path, tmp_path: Path) -> None:
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
    steps = np.abs(weights).max((1, 2, 3), keepdims=True) / 127
    rounded = np.round(weights / steps) * steps

    def logits(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return np.einsum("nihw,oi->nohw", x, w[..., 0, 0].astype(np.float64)) + bias[:, None, None]

    true, noisy = logits(inputs, weights), logits(np.round(inputs / scale) * scale, rounded)
    expected = 10 * np.log10((true**2).sum() / ((true - noisy) ** 2).sum())
    found = {row.layer: row.sqnr_db for row in rank(path, frames, "nncf")}
    assert found[conv.name] == pytest.approx(expected, abs=0.05)


def test_nncf_s_floor_of_scales_is_that_of_nncf(fragile: Path, labeled: Path, tmp_path: Path) -> None:
    """The weights that NNCF stores for the rescaled layer are the ones that are assumed here."""
    ov = pytest.importorskip("openvino")
    from edgeseg.calibration.frames import CalibrationSet
    from edgeseg.quantization.quantize import quantize

    path = deployed(fragile, tmp_path / "a.onnx")
    made = quantize(path, CalibrationSet.choose(labeled, 8).images(tiny.SPEC), "nncf", tmp_path, "mixed")
    stored = next(op for op in ov.Core().read_model(made).get_ops() if op.get_friendly_name() == "t4/WithoutBiases")
    parts = [stored.input_value(1).get_node()]  # Multiply(Convert(int8), scale)
    scale = parts[0].input_value(1).get_node().data.astype(np.float64)
    while parts[-1].get_type_name() != "Constant":
        parts.append(parts[-1].input_value(0).get_node())
    model = onnx.load(str(path))
    conv = next(n for n in model.graph.node if n.name == "t4")
    weights = onnx.numpy_helper.to_array(next(i for i in model.graph.initializer if i.name == conv.input[1]))
    expected = round_weights(weights, 0, schemes.get("nncf").min_weight_scale)
    assert scale.min() / scale.max() == pytest.approx(schemes.get("nncf").min_weight_scale, rel=0.01)
    assert (np.abs(parts[-1].data * scale - expected) <= 0.02 * scale).mean() > 0.99


def test_the_last_layer_is_rounded_behind_too_where_the_rules_do_that(network: Path, tmp_path: Path) -> None:
    path = deployed(network, tmp_path / "a.onnx")
    frames = tiny.frames(2, seed=2)
    last = onnx_graph.layers(onnx.load(str(path)))[-1].name
    sqnr = {rules: {r.layer: r.sqnr_db for r in rank(path, frames, rules)}[last] for rules in ("nncf", "qdq")}
    assert sqnr["qdq"] < sqnr["nncf"]


def test_one_layer_measured_does_not_change_another(network: Path, tmp_path: Path) -> None:
    path = deployed(network, tmp_path / "a.onnx")
    frames = tiny.frames(2, seed=2)
    alone = [rank(path, frames, "nncf", lambda i, n, measure, j=j: measure() if i == j else None) for j in range(3)]
    together = rank(path, frames, "nncf")
    assert sorted(rows[0].sqnr_db for rows in alone) == [row.sqnr_db for row in together]


def test_what_counts_as_a_layer() -> None:
    """Sums and gates of two tensors do; the preprocessing, a bias and what the rules leave alone do not."""
    net = tiny.Net()
    x = net.add("Add", net.conv("image", 3, 8, stride=2), net.constant(1.0))
    y = net.add("Mul", x, net.add("Sigmoid", x))
    y = net.add("Add", y, x)
    made = onnx_graph.deploy_graph(net.model(net.resize(net.conv(y, 8, 8, stride=2))), tiny.SPEC).model
    assert [n.op_type for n in candidates(made, schemes.get("qdq"))] == ["Conv", "Mul", "Add", "Conv"]
    assert [n.op_type for n in candidates(made, schemes.get("symmetric"))] == ["Conv", "Add", "Conv"]
    names = [n.name for n in made.graph.node]
    assert all(names) and len(set(names)) == len(names)


def test_a_network_without_layers() -> None:
    net = tiny.Net()
    made = net.model(net.add("Relu", "image"))
    with pytest.raises(OptionError, match="no layer that INT8 could apply to"):
        candidates(made, schemes.get("qdq"))


def test_names_are_unique_and_survive_where_they_were(tmp_path: Path) -> None:
    model = onnx.load(str(tiny.network(tmp_path / "n.onnx")))
    convs = [n for n in model.graph.node if n.op_type == "Conv"]
    convs[0].name, convs[1].name, convs[2].name = "stem", "stem", "logits"
    made = onnx_graph.deploy_graph(model, tiny.SPEC).model
    names = [n.name for n in made.graph.node]
    assert len(set(names)) == len(names)
    assert "stem" in names
    assert next(n for n in made.graph.node if n.name == "logits").op_type == "Cast"  # ours: rules exclude it by name


@given(low=st.floats(-1e6, 1e6), span=st.floats(0, 1e6), symmetric=st.booleans())
def test_the_grid_covers_the_range_and_holds_zero(low: float, span: float, symmetric: bool) -> None:
    scale, zero = grid(low, low + span, symmetric)
    first, last = (-127, 127) if symmetric else (0, 255)
    assert first <= zero <= last
    assert (first - zero) * scale <= low + 0.51 * scale
    assert (last - zero) * scale >= low + span - 0.51 * scale


@given(st.integers(0, 1), st.integers(0, 10_000))
def test_rounded_weights_are_half_a_step_off_at_most(axis: int, seed: int) -> None:
    w = np.random.default_rng(seed).normal(size=(3, 4, 2, 2)).astype(np.float32)
    others = tuple(i for i in range(4) if i != axis)
    away = np.abs(round_weights(w, axis) - w).max(others)
    assert (away <= np.abs(w).max(others) / 127 * 0.5001).all()


def test_the_command(edgeseg: Run, fragile: Path, labeled: Path, tmp_path: Path) -> None:
    import json

    ran = edgeseg("sensitivity", fragile, "--calibration", labeled, "--json", tmp_path / "s.json")
    assert ran.code == 0, ran.err
    rows = json.loads((tmp_path / "s.json").read_text())["layers"]
    assert [row["sqnr_db"] for row in rows] == sorted(row["sqnr_db"] for row in rows)
    assert all(row["layer"] in ran.err for row in rows)
