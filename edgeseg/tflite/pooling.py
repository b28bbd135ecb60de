"""Max and average pools; the global ones are reductions, in shapes.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import NodeProto

from edgeseg.onnx_graph.index import attribute
from edgeseg.tflite.windows import ceil_pads, padded, pixels_inside, require_images, same_pads, window_pads
from edgeseg.tflite.writer import NHWC, Writer, unsupported


def max_pool(w: Writer, node: NodeProto) -> None:
    """A padded border is zeros behind a ReLU, else a mirror of the window itself: neither can win nor widen a range."""
    name, shape = node.output[0], w.shape(node.input[0])
    require_images(node, shape)
    kernel, stride = attribute(node, "kernel_shape", []), tuple(attribute(node, "strides", [1, 1]))
    if set(attribute(node, "dilations", [1])) != {1} or len(node.output) > 1:
        raise unsupported(node, "has dilations or indices")
    index = w.get(node.input[0], NHWC)
    pads = ceil_pads(node, w, window_pads(node, shape[2:], kernel, stride, (1, 1)), kernel, stride)
    kind = "CONSTANT" if w.activation(index).startswith("RELU") and "N1" not in w.activation(index) else "SYMMETRIC"
    index, padding = padded(w, index, pads, kernel, stride, (1, 1), name, kind)
    _pool(w, "MAX_POOL_2D", index, name, kernel, stride, padding)


def average_pool(w: Writer, node: NodeProto) -> None:
    """Where the border does not count and TFLite cannot leave it out, zeros are added and the mean corrected."""
    name, shape = node.output[0], w.shape(node.input[0])
    require_images(node, shape)
    kernel, stride = attribute(node, "kernel_shape", []), tuple(attribute(node, "strides", [1, 1]))
    if set(attribute(node, "dilations", [1])) != {1}:
        raise unsupported(node, "has dilations")
    own = window_pads(node, shape[2:], kernel, stride, (1, 1))
    pads = ceil_pads(node, w, own, kernel, stride)
    counts = bool(attribute(node, "count_include_pad", 0))
    if counts and pads != own:
        raise unsupported(node, "has ceil_mode with a border that counts")
    same = same_pads(shape[2:], kernel, stride, (1, 1)) == pads and not counts
    index = w.get(node.input[0], NHWC)
    if same:
        return _pool(w, "AVERAGE_POOL_2D", index, name, kernel, stride, w.schema.Padding.SAME)
    index, padding = padded(w, index, pads, kernel, stride, (1, 1), name, force=True)
    inside = [pixels_inside(n, o, k, s, p) for n, o, k, s, p in zip(shape[2:], w.shape(name)[2:], kernel, stride, pads)]
    share = np.prod(kernel) / np.outer(*inside)
    if counts or np.all(share == 1):
        return _pool(w, "AVERAGE_POOL_2D", index, name, kernel, stride, padding)
    _pool(w, "AVERAGE_POOL_2D", index, name, kernel, stride, padding)
    gain = w.const(share.astype(np.float32)[None, :, :, None], f"{name}/share")
    index = w.values[name].index
    w.put(name, w.emit("MUL", [index, gain], w.stored(index), f"{name}/corrected"), NHWC)
    return None


def _pool(
    w: Writer, op: str, index: int, name: str, kernel: Sequence[int], stride: Sequence[int], padding: int
) -> None:
    window = {"filterHeight": kernel[0], "filterWidth": kernel[1], "strideH": stride[0], "strideW": stride[1]}
    w.compute(name, op, [index], NHWC, padding=padding, **window)


OPERATORS: dict[str, Callable[[Writer, NodeProto], None]] = {"MaxPool": max_pool, "AveragePool": average_pool}
