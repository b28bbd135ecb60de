"""The static check for TensorRT: it names the node of every broken graph, and nothing else."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdq_corpus
import tiny

from edgeseg.backends import tensorrt
from edgeseg.bundle import Bundle
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import compile_model
from edgeseg.errors import EdgesegError, OptionError
from edgeseg.runtime import open_segmenter
from edgeseg.target import Target, names
from edgeseg.tensorrt.fit import fit, older_opset
from edgeseg.tensorrt.fp16 import to_fp16
from edgeseg.tensorrt.legality import check
from edgeseg.tensorrt.memory import memory

onnx = pytest.importorskip("onnx")
JETSONS = [name for name in names() if name.startswith("jetson-")]


@pytest.mark.parametrize(("name", "rules", "make"), qdq_corpus.CASES, ids=[case[0] for case in qdq_corpus.CASES])
def test_the_rules_that_a_graph_breaks(name: str, rules: set[str], make: Callable[[], Any]) -> None:
    model = make()
    found = check(model, (8, 6))
    assert {finding.rule for finding in found} == rules
    nodes = {f"{node.op_type} {node.name or node.output[0]}" for node in model.graph.node}
    assert {finding.node for finding in found} <= nodes
    assert all(finding.problem and finding.advice for finding in found)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zero point of an activation", "QuantizeLinear t1_QuantizeLinear_1: its zero point is 3, not 0."),
        ("our Q/DQ for ONNX Runtime", "an int32 tensor (a quantized bias) is dequantized. Leave biases float"),
        ("uint8, zero point 128", "it holds uint8, which TensorRT refuses or reads as INT8."),
        ("wrong axis", "the weights of Conv t2 are scaled along axis 1. Scale them per output channel, axis 0."),
        ("per-channel activation", "an activation has a scale per channel."),
        ("negative scale", "its scale is -0.02; scales must be positive and finite."),
        ("scale computed at run time", "crashes TensorRT's parser. Make the scale an initializer"),
        ("residual, left side float", "Add t5: one side (t1) is float"),
        ("float weights", "Conv t2: its weights are float, so it runs in float."),
        ("dangling Q", "its integers go into Cast loose_cast. Put a DequantizeLinear right behind it."),
        ("dangling DQ", "its integers come from Cast loose_cast. Put a QuantizeLinear right before it."),
        ("Det", "Det t3: TensorRT's ONNX parser has no such operator. Replace it in the network"),
        ("custom operator", "FastConv magic: TensorRT's ONNX parser has no such operator."),
        ("MaxPool indices", "MaxPool pool: TensorRT's MaxPool gives no indices."),
    ],
)
def test_messages_name_the_node_and_the_fix(name: str, message: str) -> None:
    make = next(make for case, _, make in qdq_corpus.CASES if case == name)
    assert any(message in str(finding) for finding in check(make(), (8, 6)))


def test_what_runs_in_float_is_not_refused_but_noted() -> None:
    """A float residual is slower, not wrong."""
    model = qdq_corpus.bypass("Add", 0, 0)
    _, findings = fit(model, Target.load("jetson-orin"), "int8")
    assert [finding.fatal for finding in findings] == [False]
    with pytest.raises(OptionError, match=r"TensorRT on jetson-orin refuses QuantizeLinear .*: its zero point is 3"):
        fit(qdq_corpus.with_zero_point(np.int8(3)), Target.load("jetson-orin"), "int8")


def test_an_older_tensorrt_has_fewer_operators() -> None:
    model = qdq_corpus.floats("swish")
    assert check(model, (8, 5)) == []
    found = check(model, (8, 2))
    assert [str(f) for f in found] == [
        "HardSwish t2: TensorRT has this operator since 8.5. "
        "Replace it, or choose a target whose TensorRT is newer than 8.2."
    ]
    assert {finding.rule for finding in check(qdq_corpus.floats("cubic"), (8, 5))} == {"resize"}


def test_the_nano_gets_an_old_opset_and_a_float_frame(bundle_of: Callable[[str, str], Path]) -> None:
    path = bundle_of("jetson-nano", "fp16")
    model = onnx.load(str(path / "model.onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 13
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    plan = json.loads((path / "plan.json").read_text())
    assert (plan["opset"], plan["frame"], plan["way"], plan["flags"]) == (13, "float32", "runner", ["FP16"])


@pytest.mark.parametrize("opset", [18, 20, 22])
def test_what_newer_opsets_only_spell_differently_is_spelled_as_before(tmp_path: Path, opset: int) -> None:
    """As torch's dynamo exporter writes it: axes as inputs, attributes with their default values."""
    net = tiny.Net(2)
    x = net.add("Relu", net.conv("image", 3, 8, stride=2))
    axes = net.constant([2, 3], kind=np.int64)
    x = net.add("Add", x, net.add("ReduceMean", x, axes, keepdims=1))
    net.nodes.append(onnx.helper.make_node("Split", [x], ["left", "right"], name="split", axis=1, num_outputs=2))
    x = net.conv(net.add("Concat", "right", "left", axis=1), 8, 8, size=1)
    scales = net.constant([1, 1, 2, 2])
    x = net.add("Resize", x, "", scales, mode="linear", coordinate_transformation_mode="half_pixel",
                keep_aspect_ratio_policy="stretch", antialias=0)  # fmt: skip
    model = net.model(net.add("Relu", x), spec=tiny.SPEC, opset=opset)
    older = older_opset(model, Target.load("jetson-orin"))
    assert older.opset_import[0].version == 17
    reduce = next(n for n in older.graph.node if n.op_type == "ReduceMean")
    assert len(reduce.input) == 1 and [a.name for a in reduce.attribute if a.name == "axes"] == ["axes"]
    frame = np.random.default_rng(0).normal(size=(1, 3, tiny.HEIGHT, tiny.WIDTH)).astype(np.float32)
    runtime = pytest.importorskip("onnxruntime")
    sessions = [
        runtime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]) for m in (model, older)
    ]
    first, second = (session.run(None, {"image": frame})[0] for session in sessions)
    assert np.array_equal(first, second)


def test_an_operator_of_a_newer_opset_is_named() -> None:
    model = qdq_corpus.floats("residual")
    model.opset_import[0].version = 20
    at = next(i for i, node in enumerate(model.graph.node) if node.op_type == "Relu")
    model.graph.node[at].op_type = "Gelu"
    with pytest.raises(OptionError, match=r"newer ONNX opset than 17.*8\.6 on jetson-orin reads: Gelu .*opset 20"):
        older_opset(model, Target.load("jetson-orin"))


def test_to_fp16_computes_in_fp16_between_preprocessing_and_logits() -> None:
    ort = pytest.importorskip("onnxruntime")
    model = qdq_corpus.floats("residual", "bilinear", "gate")
    made = to_fp16(model)
    types = {v.name: v.type.tensor_type.elem_type for v in made.graph.value_info}
    convolutions = [node for node in made.graph.node if node.op_type == "Conv"]
    assert convolutions and all(types[node.output[0]] == onnx.TensorProto.FLOAT16 for node in convolutions)
    assert types["pre_Sub"] == onnx.TensorProto.FLOAT
    frame = tiny.frames(1, height=32, width=48)[0][None]
    a, b = (ort.InferenceSession(m.SerializeToString()).run(None, {"frame": frame})[0] for m in (model, made))
    assert b.dtype == np.float32
    np.testing.assert_allclose(a, b, atol=0.02 * a.std())
    assert len(made.SerializeToString()) < 0.75 * len(model.SerializeToString())


def test_memory_counts_weights_and_what_is_alive_at_once() -> None:
    net = tiny.Net()
    x = net.add("Relu", net.conv("image", 3, 8))
    model = net.model(net.add("Add", net.conv(x, 8, 8), x), shape=(1, 3, 64, 96))
    plane = 4 * 8 * 64 * 96
    weights = 4 * (8 * 27 + 8 + 8 * 72 + 8)
    assert 3 * plane + weights <= memory(model) <= 3 * plane + 2 * weights


# Compiling for a board


def compiled(model: Path, out: Path, target: Target, precision: str, street: Path | None = None) -> Bundle:
    chosen = CalibrationSet.choose(street, 8) if street else None
    frames = tiny.frames(3, seed=1)
    return compile_model(model, out, target, precision, spec=tiny.SPEC, frames=frames, calibration=chosen)


@pytest.mark.parametrize("target", JETSONS)
def test_a_board_gets_a_legal_graph_and_a_plan(bundle_of: Callable[[str, str], Path], target: str) -> None:
    profile = Target.load(target)
    for precision in profile.precisions:
        loaded = Bundle.load(bundle_of(target, precision))
        plan = json.loads(loaded.read("plan.json"))
        assert loaded.manifest.proved_by == "onnxruntime"
        model = onnx.load_from_string(loaded.read("model.onnx"))
        assert check(model, profile.oldest_tensorrt) == []
        assert any(n.op_type == "QuantizeLinear" for n in model.graph.node) == (precision == "int8")
        assert (plan["precision"], plan["target"]) == (precision, target)
        assert plan["shape"] == [1, tiny.HEIGHT, tiny.WIDTH, 3]
        assert plan["flags"] == {"fp32": [], "fp16": ["FP16"], "int8": ["INT8", "FP16"]}[precision]
        assert 0.9 <= plan["golden_agreement"] < 1 and plan["notes"] == []


@pytest.mark.parametrize(
    ("target", "precision", "message"),
    [
        ("jetson-nano", "int8", r"Target jetson-nano has no precision 'int8'.\nIt has: fp32, fp16."),
        ("jetson-orin", "bf16", "has no precision 'bf16'"),
        ("jetson-orin", "int8", "INT8 needs calibration frames"),
    ],
)
def test_a_precision_the_board_lacks(network: Path, tmp_path: Path, target: str, precision: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        compiled(network, tmp_path / "out", Target.load(target), precision)
    assert not list(tmp_path.iterdir())


def test_a_network_too_large_for_the_board(network: Path, tmp_path: Path) -> None:
    small = dataclasses.replace(Target.load("jetson-nano"), memory_mb=300)
    with pytest.raises(OptionError, match=r"needs about 256 MB.* jetson-nano has 300 MB, of which 75%") as caught:
        compiled(network, tmp_path / "out", small, "fp32")
    assert "Choose a smaller --size" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_operator_that_tensorrt_lacks_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    net = tiny.Net()
    x = net.add("Relu", net.conv("image", 3, 8, stride=4))
    half_of = net.add("Compress", x, net.constant([True, False] * 4, kind=np.bool_), axis=1)
    logits = net.conv(net.add("Concat", half_of, half_of, axis=1), 8, len(tiny.SPEC.classes), size=1)
    onnx.save(net.model(logits, spec=tiny.SPEC), str(tmp_path / "odd.onnx"))
    before = list(tmp_path.iterdir())
    with pytest.raises(OptionError) as caught:
        compiled(tmp_path / "odd.onnx", tmp_path / "out", Target.load("jetson-orin"), "fp32")
    assert str(caught.value) == (
        "TensorRT on jetson-orin refuses Compress t2: TensorRT's ONNX parser has no such operator.\n"
        "Replace it in the network, or leave it out of the part that is deployed"
    )
    assert list(tmp_path.iterdir()) == before


def test_dla_where_the_board_has_it(network: Path, street: Path, tmp_path: Path) -> None:
    orin = Target.load("jetson-orin").on_dla(1)
    made = compiled(network, tmp_path / "fp16", orin, "fp16")
    plan = json.loads(made.read("plan.json"))
    assert (plan["dla"], plan["gpu_fallback"], plan["notes"]) == (1, True, [])
    made = compiled(network, tmp_path / "int8", orin, "int8", street)
    assert "ignores Q/DQ pairs" in json.loads(made.read("plan.json"))["notes"][0]
    with pytest.raises(EdgesegError, match="DLA of jetson-orin has no float32"):
        compiled(network, tmp_path / "fp32", orin, "fp32")
    with pytest.raises(OptionError, match=r"jetson-orin-nano has no DLA core 0.\nIt has no DLA"):
        Target.load("jetson-orin-nano").on_dla(0)
    with pytest.raises(OptionError, match=r"no DLA core 2.\nIt has 2 DLA cores, 0 to 1."):
        Target.load("jetson-orin").on_dla(2)


def test_a_bundle_calibrated_on_the_device_contains_the_frames(network: Path, street: Path, tmp_path: Path) -> None:
    made = compiled(network, tmp_path / "out", Target.load("jetson-orin").calibrated_on_device(), "int8", street)
    assert {p.name for p in made.path.iterdir()} == {
        *("model.onnx", "plan.json", "calibration.npy", "bundle.json", "bom.cdx.json", "golden")
    }
    frames = np.load(io.BytesIO(made.read("calibration.npy")))
    assert (frames.shape, frames.dtype) == ((8, tiny.HEIGHT, tiny.WIDTH, 3), np.uint8)
    assert not any(n.op_type == "QuantizeLinear" for n in onnx.load_from_string(made.read("model.onnx")).graph.node)
    assert json.loads(made.read("plan.json"))["int8"] == "entropy"
    with open_segmenter(made.path, backend="onnxruntime") as segmenter:
        assert segmenter(tiny.frames(1)[0]).classmap.shape == (tiny.HEIGHT, tiny.WIDTH)
    for name in ("openvino-cpu", "onnxruntime-cpu", "jetson-xavier-nx"):
        with pytest.raises(OptionError, match=f"{name} has no entropy calibrator"):
            Target.load(name).calibrated_on_device()


def test_the_plan_of_a_bundle_is_read_back_and_a_broken_one_refused(
    bundle_of: Callable[[str, str], Path], tmp_path: Path
) -> None:
    from edgeseg.errors import BundleError
    from edgeseg.tensorrt.plan import Plan

    path = bundle_of("jetson-orin", "int8") / tensorrt.FILE
    table = json.loads(path.read_text())
    assert Plan.parse(path.read_bytes(), path).flags == ("INT8", "FP16")
    broken = tmp_path / "plan.json"
    for change in ({"dla": "0"}, {"format": 9}, {"shape": 3}, {"extra": 1}, {"golden_agreement": None}):
        broken.write_text(json.dumps({**table, **change}))
        with pytest.raises(BundleError, match="cannot be read"):
            Plan.parse(broken.read_bytes(), broken)
    for text in ("", "[]", "{", "null", "[" * 100_000):
        broken.write_text(text)
        with pytest.raises(BundleError, match="cannot be read"):
            Plan.parse(broken.read_bytes(), broken)
