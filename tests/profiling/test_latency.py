"""Latency: layers are timed on every backend; the table stores figures and interpolates between them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

from edgeseg.errors import FileError, OptionError
from edgeseg.precision import Precision
from edgeseg.profiling import measure
from edgeseg.profiling.layer import Layer
from edgeseg.profiling.layer_graph import layer_graph
from edgeseg.profiling.measure import LatencyComparison
from edgeseg.profiling.table import LatencyTable, grid_neighbors
from edgeseg.recipe import Recipe
from edgeseg.target import Target

onnx = pytest.importorskip("onnx")
CONV = Layer(16, 32, (16, 24), (16, 24), (3, 3))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure for a moment only: these tests do not look at the figures."""
    monkeypatch.setattr(measure, "MAX_SECONDS", 0.02)
    monkeypatch.setattr(measure, "PAIRS", 3)


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
    if measure.unavailable_reason(Target.load(target)):
        pytest.skip(measure.unavailable_reason(Target.load(target)))
    graph = layer_graph(layer)
    shapes = {v.name: v.type.tensor_type.shape.dim for v in onnx.shape_inference.infer_shapes(graph).graph.value_info}
    assert [d.dim_value for d in shapes["layer"]] == [1, layer.outputs, *layer.out]
    assert [n.op_type for n in graph.graph.node][-2:] == ["Slice", "Cast"], (
        "what follows the layer must cost the same without it"
    )
    assert measure.time_layer(layer, Target.load(target), Precision(precision)) >= 0


def test_macs_by_hand() -> None:
    assert CONV.macs == 16 * 32 * 9 * 16 * 24
    assert Layer(16, 16, (16, 24), (8, 12), (3, 3), (2, 2), groups=16).macs == 16 * 9 * 8 * 12
    assert Layer(4, 8, (8, 12), (16, 24), (2, 2), (2, 2), transposed=True).macs == 4 * 8 * 4 * 8 * 12


def test_a_depthwise_layer_stays_depthwise() -> None:
    layer = Layer(16, 16, (8, 8), (8, 8), (3, 3), groups=16).with_channels(12, 12)
    assert (layer.inputs, layer.outputs, layer.groups) == (12, 12, 12) and layer.depthwise
    assert CONV.with_channels(8, 24) == Layer(8, 24, (16, 24), (16, 24), (3, 3))


@pytest.mark.parametrize(
    ("channels", "step", "low", "high"),
    [(3, 8, 3, 3), (8, 8, 8, 8), (12, 8, 8, 16), (20, 8, 16, 24), (40, 8, 32, 48), (56, 8, 48, 64), (100, 8, 96, 128)],
)
def test_grid_neighbors_of_a_number_of_channels(channels: int, step: int, low: int, high: int) -> None:
    neighbors = [(value, weight) for value, weight in grid_neighbors(channels, step) if weight]
    assert {value for value, _ in neighbors} == {low, high}
    assert sum(value * weight for value, weight in neighbors) == pytest.approx(channels)
    assert sum(weight for _, weight in neighbors) == pytest.approx(1)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Layer]:
    """The layers that were measured; each takes inputs x outputs milliseconds."""
    layers: list[Layer] = []

    def time_layer(layer: Layer, target: Target, precision: Precision) -> float:
        layers.append(layer)
        return float(layer.inputs * layer.outputs)

    monkeypatch.setattr(measure, "time_layer", time_layer)
    return layers


def test_a_layer_is_measured_once_and_read_again(timed: list[Layer], tmp_path: Path) -> None:
    path, target = tmp_path / "measure.json", Target.load("onnxruntime-cpu")
    table = LatencyTable(path, target, Precision.INT8)
    assert table.ms(CONV) == 16 * 32
    assert table.ms(CONV.with_channels(20, 40)) == 20 * 40, "bilinear interpolation is exact for a bilinear cost"
    assert timed[0] == CONV and len(timed) == 4 == len(set(timed)), "the four corners of one cell, each once"
    again = LatencyTable(path, target, Precision.INT8)
    assert again.ms(CONV.with_channels(20, 40)) == 20 * 40 and len(timed) == 4
    stored = json.loads(path.read_text())
    assert stored["precision"] == "int8" and {"cpu", "versions"} <= set(stored["machine"])
    assert list(tmp_path.iterdir()) == [path], "no temporary file stays"


@pytest.mark.parametrize(("target", "precision"), [("onnxruntime-cpu", Precision.FP32), ("tflite-cpu", Precision.INT8)])
def test_figures_of_another_target_or_precision_are_not_used(
    timed: list[Layer], tmp_path: Path, target: str, precision: Precision
) -> None:
    path = tmp_path / "measure.json"
    LatencyTable(path, Target.load("onnxruntime-cpu"), Precision.INT8).ms(CONV)
    LatencyTable(path, Target.load(target), precision).ms(CONV)
    assert timed == [CONV, CONV]


def test_figures_of_another_machine_are_not_used(timed: list[Layer], tmp_path: Path) -> None:
    path, target = tmp_path / "measure.json", Target.load("onnxruntime-cpu")
    LatencyTable(path, target, Precision.INT8).ms(CONV)
    path.write_text(path.read_text().replace('"cores"', '"kernels"'))
    LatencyTable(path, target, Precision.INT8).ms(CONV)
    assert timed == [CONV, CONV]


def test_comparisons_are_stored_too(tmp_path: Path) -> None:
    from edgeseg import onnx_graph

    path, target = tmp_path / "measure.json", Target.load("onnxruntime-cpu")
    pytest.importorskip("onnxruntime")
    deployed = onnx_graph.deploy_graph(onnx.load(str(tiny.network(tmp_path / "tiny.onnx"))), tiny.SPEC).model
    table = LatencyTable(path, target, Precision.FP32)
    comparison = table.comparison("a", lambda: measure.compare(deployed, deployed, target, Precision.FP32))
    assert comparison.parent_ms > 0 and comparison.ms > 0 and 0 < comparison.low <= comparison.share

    def never() -> LatencyComparison:
        raise AssertionError("measured twice")

    assert LatencyTable(path, target, Precision.FP32).comparison("a", never) == comparison


def recipe(*compile: str) -> Recipe:
    table = {"name": "x", "data": {"root": ".", "size": [64, 96]}, "targets": {"compile": list(compile)}}
    return Recipe.from_dict(table, Path("r.toml"))


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (("openvino-cpu:fp32", "openvino-cpu:int8"), ("openvino-cpu", Precision.INT8)),
        (("onnxruntime-cpu:fp16", "openvino-cpu:int8"), ("onnxruntime-cpu", "fp16")),
        (("jetson-orin:fp16",), ("jetson-orin", "fp16")),
    ],
)
def test_networks_are_timed_on_the_first_target_in_int8_if_compiled_for_it(
    targets: tuple[str, ...], expected: tuple[str, str]
) -> None:
    target, precision = measure.timing_target(recipe(*targets))
    assert (target.name, precision) == expected


def test_a_board_is_not_timed_here() -> None:
    assert "on the board" in measure.unavailable_reason(Target.load("jetson-orin"))
    with pytest.raises(OptionError, match=r"names no target to measure latency on\.\nName one"):
        measure.timing_target(recipe())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:40], r"Latency table .*latency\.json is not JSON of edgeseg: .*\nRemove it"),
        (lambda text: text.replace("512.0", '"fast"'), r"Latency table .*latency\.json cannot be read: .*\nRemove it"),
    ],
)
def test_a_damaged_table_is_refused(
    timed: list[Layer], tmp_path: Path, damage: Callable[[str], str], message: str
) -> None:
    path, target = tmp_path / "latency.json", Target.load("onnxruntime-cpu")
    LatencyTable(path, target, Precision.INT8).ms(CONV)
    path.write_text(damage(path.read_text()))
    with pytest.raises(FileError, match=message):
        LatencyTable(path, target, Precision.INT8)
