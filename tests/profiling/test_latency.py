"""The latency table: what is measured is kept and read again, between its points it interpolates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

from edgeseg.errors import OptionError
from edgeseg.precision import Precision
from edgeseg.profiling import latency
from edgeseg.profiling.latency import Layer, Table, around
from edgeseg.recipe import Recipe
from edgeseg.target import Target

onnx = pytest.importorskip("onnx")
CONV = Layer(16, 32, (16, 24), (16, 24), (3, 3))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of a few runs are enough here."""
    monkeypatch.setattr(latency, "SECONDS", 0.02)
    monkeypatch.setattr(latency, "PAIRS", 3)


@pytest.mark.parametrize(
    ("target", "precision"),
    [("openvino-cpu", "int8"), ("openvino-cpu", "fp32"), ("onnxruntime-cpu", "int8"), ("tflite-cpu", "int8")],
)
@pytest.mark.parametrize(
    "layer",
    [
        CONV,
        Layer(16, 32, (16, 24), (8, 12), (3, 3), (2, 2)),
        Layer(16, 16, (16, 24), (16, 24), (3, 3), groups=16),
        Layer(16, 8, (8, 12), (16, 24), (2, 2), (2, 2), transposed=True),
        Layer(16, 8, (8, 12), (16, 24), (4, 4), (2, 2), transposed=True),
        Layer(16, 64, (96, 1), (96, 1)),
    ],
    ids=str,
)
def test_every_kind_of_layer_runs_on_every_backend(target: str, precision: str, layer: Layer) -> None:
    if latency.unavailable_reason(Target.load(target)):
        pytest.skip(latency.unavailable_reason(Target.load(target)))
    graph = latency._holder(layer, True)
    shapes = {v.name: v.type.tensor_type.shape.dim for v in onnx.shape_inference.infer_shapes(graph).graph.value_info}
    assert [d.dim_value for d in shapes["layer"]] == [1, layer.outputs, *layer.out]
    assert [n.op_type for n in graph.graph.node][-2:] == ["Slice", "Cast"], "what follows costs the same without it"
    assert latency.time_layer(layer, Target.load(target), Precision(precision)) >= 0


def test_macs_by_hand() -> None:
    assert CONV.macs == 16 * 32 * 9 * 16 * 24
    assert Layer(16, 16, (16, 24), (8, 12), (3, 3), (2, 2), groups=16).macs == 16 * 9 * 8 * 12
    assert Layer(4, 8, (8, 12), (16, 24), (2, 2), (2, 2), transposed=True).macs == 4 * 8 * 4 * 8 * 12


def test_a_depthwise_layer_stays_depthwise() -> None:
    layer = Layer(16, 16, (8, 8), (8, 8), (3, 3), groups=16).widths(12, 12)
    assert (layer.inputs, layer.outputs, layer.groups) == (12, 12, 12) and layer.depthwise
    assert CONV.widths(8, 24) == Layer(8, 24, (16, 24), (16, 24), (3, 3))


@pytest.mark.parametrize(
    ("channels", "step", "low", "high"),
    [(3, 8, 3, 3), (8, 8, 8, 8), (12, 8, 8, 16), (20, 8, 16, 24), (40, 8, 32, 48), (56, 8, 48, 64), (100, 8, 96, 128)],
)
def test_the_grid_lies_around_every_number_of_channels(channels: int, step: int, low: int, high: int) -> None:
    found = [(value, weight) for value, weight in around(channels, step) if weight]
    assert {value for value, _ in found} == {low, high}
    assert sum(value * weight for value, weight in found) == pytest.approx(channels)
    assert sum(weight for _, weight in found) == pytest.approx(1)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Layer]:
    """The layers that were measured; each takes its inputs x outputs in ms, so that sums are known."""
    asked: list[Layer] = []

    def measure(layer: Layer, target: Target, precision: str) -> float:
        asked.append(layer)
        return float(layer.inputs * layer.outputs)

    monkeypatch.setattr(latency, "time_layer", measure)
    return asked


def test_a_layer_is_measured_once_and_read_again(counted: list[Layer], tmp_path: Path) -> None:
    path, target = tmp_path / "latency.json", Target.load("onnxruntime-cpu")
    table = Table(path, target, "int8")
    assert table.ms(CONV) == 16 * 32
    assert table.ms(CONV.widths(20, 40)) == 20 * 40, "bilinear, and exact where the truth is"
    assert counted[0] == CONV and len(counted) == 4 == len(set(counted)), "the corners of one cell, one of them known"
    again = Table(path, target, "int8")
    assert again.ms(CONV.widths(20, 40)) == 20 * 40 and len(counted) == 4
    stored = json.loads(path.read_text())
    assert stored["precision"] == "int8" and {"cpu", "versions"} <= set(stored["machine"])
    assert list(tmp_path.iterdir()) == [path], "no temporary file stays"


@pytest.mark.parametrize(("target", "precision"), [("onnxruntime-cpu", "fp32"), ("tflite-cpu", "int8")])
def test_figures_of_something_else_are_not_used(
    counted: list[Layer], tmp_path: Path, target: str, precision: str
) -> None:
    path = tmp_path / "latency.json"
    Table(path, Target.load("onnxruntime-cpu"), "int8").ms(CONV)
    Table(path, Target.load(target), precision).ms(CONV)
    assert counted == [CONV, CONV]


def test_figures_of_another_machine_are_not_used(counted: list[Layer], tmp_path: Path) -> None:
    path, target = tmp_path / "latency.json", Target.load("onnxruntime-cpu")
    Table(path, target, "int8").ms(CONV)
    path.write_text(path.read_text().replace('"cores"', '"kernels"'))
    Table(path, target, "int8").ms(CONV)
    assert counted == [CONV, CONV]


def test_a_race_is_kept_too(tmp_path: Path) -> None:
    from edgeseg import onnx_graph

    path, target = tmp_path / "latency.json", Target.load("onnxruntime-cpu")
    pytest.importorskip("onnxruntime")
    deployed = onnx_graph.deploy_graph(onnx.load(str(tiny.network(tmp_path / "tiny.onnx"))), tiny.SPEC).model
    found = Table(path, target, "fp32").share("a", lambda: latency.race(deployed, deployed, target, Precision.FP32))
    assert found["parent_ms"] > 0 and found["ms"] > 0 and 0 < found["low"] <= found["share"]

    def never() -> dict[str, float]:
        raise AssertionError("measured twice")

    assert Table(path, target, "fp32").share("a", never) == found


def recipe(*compile: str) -> Recipe:
    table = {"name": "x", "data": {"root": ".", "size": [64, 96]}, "targets": {"compile": list(compile)}}
    return Recipe.from_dict(table, Path("r.toml"))


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (("openvino-cpu:fp32", "openvino-cpu:int8"), ("openvino-cpu", "int8")),
        (("onnxruntime-cpu:fp16", "openvino-cpu:int8"), ("onnxruntime-cpu", "fp16")),
        (("jetson-orin:fp16",), ("jetson-orin", "fp16")),
    ],
)
def test_the_place_is_the_first_target_in_int8_if_it_has_it(
    targets: tuple[str, ...], expected: tuple[str, str]
) -> None:
    target, precision = latency.timing_target(recipe(*targets))
    assert (target.name, precision) == expected


def test_a_board_is_not_timed_here() -> None:
    assert "on the board" in latency.unavailable_reason(Target.load("jetson-orin"))
    with pytest.raises(OptionError, match=r"names no target to be fast on\.\nName one"):
        latency.timing_target(recipe())
