"""Max and average pools; the global ones are reductions, in shapes.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from edgeseg.onnx_graph.index import attribute
from edgeseg.tflite.windows import Window, ceil_pads, padded, pixels_inside, require_images, same_pads, window_pads
from edgeseg.tflite.writer import NHWC, Writer, unsupported


def max_pool(w: Writer, node: NodeProto) -> None:
    """A padded border is zeros behind a ReLU, else a mirror of the window itself: neither can win nor widen a range."""
    name, shape = node.output[0], w.shape(node.input[0])
    require_images(node, shape)
    window = Window.of(node, attribute(node, "kernel_shape", []))
    if set(window.dilation) != {1} or len(node.output) > 1:
        raise unsupported(node, "has dilations or indices")
    index = w.get(node.input[0], NHWC)
    pads = ceil_pads(node, w, window_pads(node, shape[2:], window), window)
    positive = w.activation(index).startswith("RELU") and "N1" not in w.activation(index)
    index, padding = padded(w, index, pads, window, name, mirror=not positive)
    _pool(w, "MAX_POOL_2D", index, name, window, padding)


def average_pool(w: Writer, node: NodeProto) -> None:
    """Where the border does not count and TFLite cannot leave it out, zeros are added and the mean corrected."""
    name, shape = node.output[0], w.shape(node.input[0])
    require_images(node, shape)
    window = Window.of(node, attribute(node, "kernel_shape", []))
    if set(window.dilation) != {1}:
        raise unsupported(node, "has dilations")
    own = window_pads(node, shape[2:], window)
    pads = ceil_pads(node, w, own, window)
    counts = bool(attribute(node, "count_include_pad", 0))
    if counts and pads != own:
        raise unsupported(node, "has ceil_mode with a border that counts")
    same = same_pads(shape[2:], window) == pads and not counts
    index = w.get(node.input[0], NHWC)
    if same:
        return _pool(w, "AVERAGE_POOL_2D", index, name, window, w.schema.Padding.SAME)
    index, padding = padded(w, index, pads, window, name, explicit=True)
    dims = zip(shape[2:], w.shape(name)[2:], window.kernel, window.stride, pads)
    share = np.prod(window.kernel) / np.outer(*(pixels_inside(*dim) for dim in dims))
    if counts or np.all(share == 1):
        return _pool(w, "AVERAGE_POOL_2D", index, name, window, padding)
    _pool(w, "AVERAGE_POOL_2D", index, name, window, padding)
    gain = w.const(share.astype(np.float32)[None, :, :, None], f"{name}/share")
    index = w.values[name].index
    w.put(name, w.emit("MUL", [index, gain], w.stored(index), f"{name}/corrected"), NHWC)
    return None


def _pool(w: Writer, op: str, index: int, name: str, window: Window, padding: int) -> None:
    options = dict(zip(("filterHeight", "filterWidth", "strideH", "strideW"), (*window.kernel, *window.stride)))
    w.compute(name, op, [index], NHWC, padding=padding, **options)


OPERATORS: dict[str, Callable[[Writer, NodeProto], None]] = {"MaxPool": max_pool, "AveragePool": average_pool}
