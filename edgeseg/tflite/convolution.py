"""Convolutions and transposed convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import NodeProto

from edgeseg.onnx_graph.index import attribute
from edgeseg.tflite.flatbuffer import Array
from edgeseg.tflite.padding import before_pad
from edgeseg.tflite.windows import Window, padded, require_images, window_pads
from edgeseg.tflite.writer import NHWC, Writer, unsupported


def conv(w: Writer, node: NodeProto) -> None:
    """CONV_2D, or DEPTHWISE_CONV_2D where every channel is a group; a Pad before it becomes part of it."""
    name, weight = node.output[0], w.constant(node, 1)
    source, extra = before_pad(w, node.input[0])
    shape, group = w.shape(source), attribute(node, "group", 1)
    require_images(node, shape)
    out, inner, *kernel = weight.shape
    window = Window.of(node, kernel)
    size = [n + sum(p) for n, p in zip(shape[2:], extra)]
    pads = [(a + c, b + d) for (a, b), (c, d) in zip(extra, window_pads(node, size, window))]
    index, padding = padded(w, w.get(source, NHWC), pads, window, name)
    names = ("strideH", "strideW", "dilationHFactor", "dilationWFactor")
    options = {"padding": padding, **dict(zip(names, (*window.stride, *window.dilation)))}
    bias = w.constant(node, 2, np.zeros(out, np.float32))
    depthwise = inner == 1 and group == shape[1]
    if depthwise:
        weight, options["depthMultiplier"] = weight.transpose(1, 2, 3, 0), out // group
    else:
        weight = weight.transpose(0, 2, 3, 1)
    inputs = [index, w.const(weight, f"{name}/weight"), w.const(bias, f"{name}/bias")]
    op = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    w.compute(name, op, inputs, NHWC, **options)


def conv_transpose(w: Writer, node: NodeProto) -> None:
    """TRANSPOSE_CONV; what its padding cannot cut off is sliced away. It knows no groups and no dilation, so that these
    become zeros in the kernel."""
    name, shape = node.output[0], w.shape(node.input[0])
    require_images(node, shape)
    weight = spread(w.constant(node, 1), attribute(node, "group", 1), attribute(node, "dilations", [1, 1]))
    stride, kernel, out = attribute(node, "strides", [1, 1]), weight.shape[2:], w.shape(name)
    uncropped = [(n - 1) * s + k for n, s, k in zip(shape[2:], stride, kernel)]
    crop = [f - o for f, o in zip(uncropped, out[2:])]
    pads = attribute(node, "pads", [0, 0, 0, 0])
    before = list(pads[:2])
    auto_pad = attribute(node, "auto_pad", b"NOTSET")
    if auto_pad in (b"SAME_UPPER", b"SAME_LOWER"):
        before = [c // 2 if auto_pad == b"SAME_UPPER" else c - c // 2 for c in crop]
    if any(b > c for b, c in zip(before, crop)):
        raise unsupported(node, "has an output_padding beyond its kernel")
    fits = all(-(-o // s) == n and c // 2 == b for o, s, n, c, b in zip(out[2:], stride, shape[2:], crop, before))
    size = [1, *(out[2:] if fits else uncropped), out[1]]
    inputs = [
        w.const(np.array(size, np.int32), f"{name}/size"),
        w.const(weight.transpose(1, 2, 3, 0), f"{name}/weight"),
        w.get(node.input[0], NHWC),
        w.const(w.constant(node, 2, np.zeros(out[1], np.float32)), f"{name}/bias"),
    ]
    options = {"padding": w.schema.Padding.SAME if fits else w.schema.Padding.VALID}
    options |= {"strideH": stride[0], "strideW": stride[1]}
    index = w.emit("TRANSPOSE_CONV", inputs, size, name if fits else f"{name}/whole", np.float32, **options)
    if fits or not any(crop):
        w.put(name, index, NHWC)
    else:
        limits = {"begin": [0, *before, 0], "size": [1, *out[2:], out[1]]}
        tensors = [w.const(np.array(values, np.int32), f"{name}/{key}") for key, values in limits.items()]
        w.compute(name, "SLICE", [index, *tensors], NHWC)


def spread(weight: Array, groups: int, dilation: Sequence[int]) -> Array:
    """[in, out / groups, h, w] -> [in, out, (h - 1) * dilation[0] + 1, (w - 1) * dilation[1] + 1], zeros in between."""
    inner, out, height, width = weight.shape
    each = inner // groups
    size = [(n - 1) * step + 1 for n, step in zip((height, width), dilation)]
    wide = np.zeros((inner, out * groups, *size), weight.dtype)
    for g in range(groups):
        rows, columns = slice(g * each, (g + 1) * each), slice(g * out, (g + 1) * out)
        wide[rows, columns, :: dilation[0], :: dilation[1]] = weight[rows]
    return wide


OPERATORS: dict[str, Callable[[Writer, NodeProto], None]] = {"Conv": conv, "ConvTranspose": conv_transpose}
