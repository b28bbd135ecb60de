"""Convolutions that move in front of an upsampling: the same results, and only where it pays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny import Net

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg import onnx_graph
from edgeseg.onnx_graph.loading import fold
from edgeseg.onnx_graph.swap_upsample_conv import swap_upsample_conv
from edgeseg.onnx_graph.unstack import unstack

SHAPE = (1, 3, 8, 12)


def run(model: Any, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": image})[0])


def rewritten(model: Any) -> tuple[Any, int]:
    """(rewritten copy, convolutions moved), after checking that the copy is valid and computes the same."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    fold(copy)
    unstack(copy)
    moved = swap_upsample_conv(copy)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(copy))
    image = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    np.testing.assert_allclose(run(model, image), run(copy, image), rtol=1e-4, atol=1e-4)
    return copy, moved


def up(net: Net, x: str, factor: float, mode: str = "linear", **more: Any) -> str:
    return net.add("Resize", x, "", net.constant([1, 1, factor, factor]), mode=mode, **more)


def down(net: Net, x: str, factor: int) -> str:
    return net.add("AveragePool", x, kernel_shape=[factor, factor], strides=[factor, factor])


def pyramid(net: Net, channels: int = 24, mode: str = "linear", **more: Any) -> list[str]:
    """A map at the image's size and two that were upsampled to it."""
    here = net.conv("image", 3, channels)
    small = [up(net, net.conv(down(net, "image", f), 3, channels), f, mode, **more) for f in (2, 4)]
    return [here, *small]


def classifier(net: Net, x: str, channels: int, classes: int = 5, **more: Any) -> str:
    weight = net.constant(net.random.normal(size=(classes, channels, 1, 1)))
    return net.add("Conv", x, weight, net.constant(net.random.normal(size=classes)), **more)


def stacked(net: Net, tensors: list[str]) -> str:
    """torch.stack(tensors).sum(0)"""
    axis = net.constant([0], kind=np.int64)
    rows = [net.add("Unsqueeze", t, axis) for t in tensors]
    return net.add("ReduceSum", net.add("Concat", *rows, axis=0), axis, keepdims=0)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("convention", ["half_pixel", "asymmetric", "align_corners"])
def test_a_summed_pyramid(mode: str, convention: str) -> None:
    net = Net()
    a, b, c = pyramid(net, mode=mode, coordinate_transformation_mode=convention)
    made, moved = rewritten(net.model(classifier(net, net.add("Add", net.add("Add", a, b), c), 24), shape=SHAPE))
    assert moved == 1
    resized = [n for n in made.graph.node if n.op_type == "Resize"]
    shapes = onnx_graph.static_shapes(made)
    assert sorted(shapes[n.input[0]] for n in resized) == [[1, 5, 2, 3], [1, 5, 4, 6]]
    assert onnx_graph.operator_counts(made)["Add"] == 2


def test_a_stacked_pyramid_loses_its_stack() -> None:
    net = Net()
    made, moved = rewritten(net.model(classifier(net, stacked(net, pyramid(net)), 24), shape=SHAPE))
    assert moved == 1
    assert not {"Unsqueeze", "Concat", "ReduceSum"} & set(onnx_graph.operator_counts(made))


def test_a_concatenated_pyramid_splits_the_weights() -> None:
    net = Net()
    joined = net.add("Concat", *pyramid(net), axis=1)
    made, moved = rewritten(net.model(classifier(net, joined, 72), shape=SHAPE))
    assert moved == 1 and onnx_graph.operator_counts(made)["Concat"] == 0


def test_two_maps_that_were_not_upsampled_stay_together() -> None:
    net = Net()
    a, b, c = pyramid(net)
    joined = net.add("Concat", b, a, net.conv("image", 3, 8), c, axis=1)
    made, moved = rewritten(net.model(classifier(net, joined, 80), shape=SHAPE))
    assert moved == 1 and onnx_graph.operator_counts(made)["Concat"] == 1
    assert onnx_graph.static_shapes(made)[next(n for n in made.graph.node if n.op_type == "Concat").output[0]][1] == 32


def test_one_upsampled_map_alone() -> None:
    net = Net()
    made, moved = rewritten(net.model(classifier(net, pyramid(net)[1], 24), shape=SHAPE))
    assert moved == 1 and made.graph.node[-1].op_type == "Resize"


def test_sizes_of_a_resize_follow_the_channels() -> None:
    net = Net()
    sizes = net.constant([1, 24, 8, 12], kind=np.int64)
    small = net.add("Resize", net.conv(down(net, "image", 2), 3, 24), "", "", sizes, mode="linear")
    assert rewritten(net.model(classifier(net, small, 24), shape=SHAPE))[1] == 1


def test_not_where_it_is_more_work() -> None:
    net = Net()
    wide = classifier(net, pyramid(net, channels=4)[1], 4, classes=64)
    assert rewritten(net.model(wide, shape=SHAPE))[1] == 0


def test_not_across_a_map_that_something_else_reads() -> None:
    net = Net()
    small = pyramid(net)[1]
    both = net.add("Concat", classifier(net, small, 24), small, axis=1)
    assert rewritten(net.model(both, shape=SHAPE))[1] == 0


@pytest.mark.parametrize(
    "more", [{"strides": [2, 2]}, {"pads": [1, 1, 1, 1]}, {"group": 1, "auto_pad": "SAME_UPPER", "strides": [2, 1]}]
)
def test_not_for_a_convolution_that_reads_neighbors(more: dict[str, Any]) -> None:
    net = Net()
    assert rewritten(net.model(classifier(net, pyramid(net)[1], 24, **more), shape=SHAPE))[1] == 0


def test_not_for_a_downsampling_or_cubic() -> None:
    net = Net()
    for resize in (up(net, net.conv("image", 3, 24), 0.5), pyramid(net, mode="cubic")[1]):
        model = net.model(classifier(net, resize, 24), shape=SHAPE)
        assert swap_upsample_conv(onnx_graph.simplify(model, 8, 12)) == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=4), st.booleans(), st.integers(1, 40), st.booleans())
def test_any_mixture_computes_the_same(factors: list[int], concat: bool, channels: int, bias: bool) -> None:
    net = Net()
    maps = [net.conv(down(net, "image", f) if f > 1 else "image", 3, channels) for f in factors]
    maps = [up(net, x, f) if f > 1 else x for x, f in zip(maps, factors)]
    joined, wide = maps[0], channels
    if concat:
        joined, wide = net.add("Concat", *maps, axis=1), channels * len(maps)
    else:
        for x in maps[1:]:
            joined = net.add("Add", joined, x)
    weight = net.constant(net.random.normal(size=(3, wide, 1, 1)))
    inputs = [joined, weight, *([net.constant([1, 2, 3])] if bias else [])]
    rewritten(net.model(net.add("Conv", *inputs), shape=SHAPE))
