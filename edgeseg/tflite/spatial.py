"""Convolutions, pools, resizes and pads: the operators for which TFLite wants the channels last."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import NodeProto

from edgeseg.onnx_graph.index import attribute
from edgeseg.tflite.flatbuffer import Array
from edgeseg.tflite.shapes import take
from edgeseg.tflite.writer import NHWC, Writer, unsupported

Pads = list[tuple[int, int]]  # (before, after) of H and W


def conv(w: Writer, node: NodeProto) -> None:
    """CONV_2D, or DEPTHWISE_CONV_2D where every channel is a group; a Pad before it becomes part of it."""
    name, weight = node.output[0], w.constant(node, 1)
    source, extra = before_pad(w, node.input[0])
    shape, group = w.shape(source), attribute(node, "group", 1)
    _two_dimensional(node, shape)
    out, inner, *kernel = weight.shape
    stride, dilation = (tuple(attribute(node, key, [1, 1])) for key in ("strides", "dilations"))
    size = [n + sum(p) for n, p in zip(shape[2:], extra)]
    pads = [(a + c, b + d) for (a, b), (c, d) in zip(extra, window_pads(node, size, kernel, stride, dilation))]
    index, padding = padded(w, w.get(source, NHWC), pads, kernel, stride, dilation, name)
    options = {"padding": padding, "strideH": stride[0], "strideW": stride[1]}
    options |= {"dilationHFactor": dilation[0], "dilationWFactor": dilation[1]}
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
    """TRANSPOSE_CONV; what its padding cannot cut off is sliced away."""
    name, weight, shape = node.output[0], w.constant(node, 1), w.shape(node.input[0])
    _two_dimensional(node, shape)
    if attribute(node, "group", 1) != 1 or set(attribute(node, "dilations", [1])) != {1}:
        raise unsupported(node, "has groups or dilations")
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


def max_pool(w: Writer, node: NodeProto) -> None:
    """A padded border is zeros behind a ReLU, else a mirror of the window itself: neither can win nor widen a range."""
    name, shape = node.output[0], w.shape(node.input[0])
    _two_dimensional(node, shape)
    kernel, stride = attribute(node, "kernel_shape", []), tuple(attribute(node, "strides", [1, 1]))
    if set(attribute(node, "dilations", [1])) != {1} or len(node.output) > 1:
        raise unsupported(node, "has dilations or indices")
    index = w.get(node.input[0], NHWC)
    pads = _ceiled(node, w, window_pads(node, shape[2:], kernel, stride, (1, 1)), kernel, stride)
    kind = "CONSTANT" if w.activation(index).startswith("RELU") and "N1" not in w.activation(index) else "SYMMETRIC"
    index, padding = padded(w, index, pads, kernel, stride, (1, 1), name, kind)
    _pool(w, "MAX_POOL_2D", index, name, kernel, stride, padding)


def average_pool(w: Writer, node: NodeProto) -> None:
    """Where the border does not count and TFLite cannot leave it out, zeros are added and the mean corrected."""
    name, shape = node.output[0], w.shape(node.input[0])
    _two_dimensional(node, shape)
    kernel, stride = attribute(node, "kernel_shape", []), tuple(attribute(node, "strides", [1, 1]))
    if set(attribute(node, "dilations", [1])) != {1}:
        raise unsupported(node, "has dilations")
    own = window_pads(node, shape[2:], kernel, stride, (1, 1))
    pads = _ceiled(node, w, own, kernel, stride)
    counts = bool(attribute(node, "count_include_pad", 0))
    if counts and pads != own:
        raise unsupported(node, "has ceil_mode with a border that counts")
    same = _same(shape[2:], kernel, stride, (1, 1)) == pads and not counts
    index = w.get(node.input[0], NHWC)
    if same:
        return _pool(w, "AVERAGE_POOL_2D", index, name, kernel, stride, w.schema.Padding.SAME)
    index, padding = padded(w, index, pads, kernel, stride, (1, 1), name, force=True)
    inside = [_inside(n, o, k, s, p) for n, o, k, s, p in zip(shape[2:], w.shape(name)[2:], kernel, stride, pads)]
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


def resize(w: Writer, node: NodeProto) -> None:
    """RESIZE_BILINEAR or RESIZE_NEAREST_NEIGHBOR; nearest sampling that TFLite lacks as GATHER along each axis."""
    x, name = node.input[0], node.output[0]
    before, after = w.shape(x), w.shape(name)
    _two_dimensional(node, before)
    mode = attribute(node, "coordinate_transformation_mode", b"half_pixel").decode()
    interpolation = attribute(node, "mode", b"nearest")
    if (
        before[:2] != after[:2]
        or attribute(node, "antialias", 0)
        or interpolation == b"cubic"
        or mode == "tf_crop_and_resize"
    ):
        raise unsupported(node, "is cubic, antialiased, cropping, or not of height and width alone")
    scales = [after[d] / before[d] for d in (2, 3)]
    scales_input = w.constant(node, 2, np.zeros(0)) if len(node.input) > 2 else np.zeros(0)
    if scales_input.size and mode != "align_corners":
        if any(abs(s * n - o) > 1e-3 for s, n, o in zip(scales_input, before, after)) and interpolation == b"linear":
            raise unsupported(node, "samples at a scale that is not the ratio of its sizes")
        scales = [float(s) for s in scales_input[2:]]
    if interpolation == b"nearest":
        return _nearest(w, node, x, name, mode, scales)
    half = mode in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
    if not half and mode not in ("align_corners", "asymmetric"):
        raise unsupported(node, f"has the coordinates {mode}")
    _resize(w, "RESIZE_BILINEAR", x, name, mode == "align_corners", half)
    return None


def _resize(w: Writer, op: str, x: str, name: str, align: bool, half: bool) -> None:
    size = w.const(np.array(w.shape(name)[2:], np.int32), f"{name}/size")
    w.compute(name, op, [w.get(x, NHWC), size], NHWC, alignCorners=align, halfPixelCenters=half)


def _nearest(w: Writer, node: NodeProto, x: str, name: str, mode: str, scales: list[float]) -> None:
    rounding = attribute(node, "nearest_mode", b"round_prefer_floor").decode()
    expected = [nearest_indices(a, b, s, mode, rounding) for a, b, s in zip(w.shape(x)[2:], w.shape(name)[2:], scales)]
    for align, half in ((False, False), (False, True), (True, False)):
        tflite = [tflite_nearest(a, b, align, half) for a, b in zip(w.shape(x)[2:], w.shape(name)[2:])]
        if all(np.array_equal(a, b) for a, b in zip(expected, tflite)):
            return _resize(w, "RESIZE_NEAREST_NEIGHBOR", x, name, align, half)
    w.shapes[f"{name}/rows"] = [*w.shape(x)[:2], len(expected[0]), w.shape(x)[3]]
    take(w, x, f"{name}/rows", 2, expected[0])
    take(w, f"{name}/rows", name, 3, expected[1])
    return None


def nearest_indices(before: int, after: int, ratio: float, mode: str, rounding: str) -> Array:
    """Which source pixel each of `after` pixels takes, as ONNX defines it (Resize-13), in ONNX Runtime's float32."""
    x, half, scale = np.arange(after, dtype=np.float32), np.float32(0.5), np.float32(ratio)
    positions = {
        "asymmetric": x / scale,
        "half_pixel": (x + half) / scale - half,
        "pytorch_half_pixel": (x + half) / scale - half if after > 1 else x * 0,
        "align_corners": x * np.float32(before - 1) / np.float32(after - 1) if after > 1 else x * 0,
    }
    position = positions.get(mode, positions["half_pixel"])
    rounded = {
        "floor": np.floor(position),
        "ceil": np.ceil(position),
        "round_prefer_floor": np.ceil(position - half),
        "round_prefer_ceil": np.floor(position + half),
    }[rounding]
    return np.asarray(np.clip(rounded, 0, before - 1), np.int64)


def tflite_nearest(before: int, after: int, align: bool, half: bool) -> Array:
    """Which source pixel TFLite's RESIZE_NEAREST_NEIGHBOR takes, in its own float32 steps."""
    scale = np.float32((before - 1) / (after - 1) if align and after > 1 else before / after)
    position = (np.arange(after, dtype=np.float32) + np.float32(0.5 if half else 0)) * scale
    rounded = np.floor(position + np.float32(0.5)) if align else np.floor(position)
    return np.asarray(np.clip(rounded, 0, before - 1), np.int64)


def pad(w: Writer, node: NodeProto) -> None:
    x, name, rank = node.input[0], node.output[0], len(w.shape(node.input[0]))
    amounts, value, mode = _pad_of(w, node)
    if min(amounts.ravel()) < 0:
        raise unsupported(node, "crops (has negative pads)")
    order = w.order_of(x)
    index = w.get(x, order)
    table = w.const(amounts.reshape(2, rank).T[list(order)].astype(np.int32), f"{name}/pads")
    if mode == "constant":
        op, more = ("PAD", []) if value == 0 else ("PADV2", [w.const(np.float32(value), f"{name}/value")])
        w.compute(name, op, [index, table, *more], order)
    elif mode == "reflect" or (mode == "edge" and amounts.max() <= 1):
        # An edge of one pixel is also the first pixel of a symmetric mirror.
        kind = w.schema.MirrorPadMode.REFLECT if mode == "reflect" else w.schema.MirrorPadMode.SYMMETRIC
        w.compute(name, "MIRROR_PAD", [index, table], order, mode=kind)
    else:
        raise unsupported(node, f"has the mode {mode}")


def _pad_of(w: Writer, node: NodeProto) -> tuple[Array, float, str]:
    """(amounts [2, rank], the constant, the mode) of a Pad."""
    rank = len(w.shape(node.input[0]))
    pads = w.constant(node, 1) if len(node.input) > 1 else np.array(attribute(node, "pads", []))
    value = float(w.constant(node, 2, 0.0).reshape(())) if len(node.input) > 1 else attribute(node, "value", 0.0)
    amounts = pads.reshape(2, -1)
    if len(node.input) > 3 and node.input[3]:
        all_axes = np.zeros((2, rank), np.int64)
        all_axes[:, w.constant(node, 3) % rank] = amounts
        amounts = all_axes
    return amounts, value, attribute(node, "mode", b"constant").decode()


def before_pad(w: Writer, x: str) -> tuple[str, Pads]:
    """(input, amounts) of the Pad with zeros of H and W that makes `x`; `x` itself where there is no such Pad."""
    node = w.onnx.producer(x, "Pad")
    if node is None or len(w.shape(x)) != 4:
        return x, [(0, 0), (0, 0)]
    amounts, value, mode = _pad_of(w, node)
    if mode != "constant" or value != 0 or amounts[:, :2].any() or amounts.min() < 0:
        return x, [(0, 0), (0, 0)]
    return node.input[0], [(int(a), int(b)) for a, b in amounts[:, 2:].T]


def depth_to_space(w: Writer, node: NodeProto) -> None:
    """TFLite expects the block before the channels (DCR); for CRD (pixel shuffle) the channels are reordered first."""
    x, name, block = node.input[0], node.output[0], attribute(node, "blocksize", 1)
    channels = w.shape(name)[1]
    if attribute(node, "mode", b"DCR") == b"CRD":
        w.shapes[f"{name}/sorted"] = list(w.shape(x))
        take(w, x, f"{name}/sorted", 1, np.arange(w.shape(x)[1]).reshape(channels, block * block).T.ravel())
        x = f"{name}/sorted"
    w.compute(name, "DEPTH_TO_SPACE", [w.get(x, NHWC)], NHWC, blockSize=block)


# Windows


def window_pads(
    node: NodeProto, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Pads:
    """The pads a node asks for, also as auto_pad."""
    auto_pad = attribute(node, "auto_pad", b"NOTSET")
    if auto_pad in (b"SAME_UPPER", b"SAME_LOWER"):
        same = _same(size, kernel, stride, dilation)
        return same if auto_pad == b"SAME_UPPER" else [(b, a) for a, b in same]
    pads = [0, 0, 0, 0] if auto_pad == b"VALID" else attribute(node, "pads", [0, 0, 0, 0])
    return [(pads[0], pads[2]), (pads[1], pads[3])]


def _same(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Pads:
    """The pads that TFLite's SAME means: what is odd goes behind."""
    totals = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in zip(size, kernel, stride, dilation)]
    return [(t // 2, t - t // 2) for t in totals]


def _ceiled(node: NodeProto, w: Writer, pads: Pads, kernel: Sequence[int], stride: Sequence[int]) -> Pads:
    """`pads` grown behind to where a pool with ceil_mode reaches."""
    if not attribute(node, "ceil_mode", 0):
        return pads
    size, out = w.shape(node.input[0])[2:], w.shape(node.output[0])[2:]
    if any((o - 1) * s >= n + p for o, s, n, (p, _) in zip(out, stride, size, pads)):
        raise unsupported(node, "has a ceil_mode whose last window holds nothing but border")
    ends = [(o - 1) * s + k - n - p for o, s, k, n, (p, _) in zip(out, stride, kernel, size, pads)]
    return [(a, max(b, end)) for (a, b), end in zip(pads, ends)]


def padded(
    w: Writer,
    index: int,
    pads: Pads,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    name: str,
    kind: str = "CONSTANT",
    force: bool = False,
) -> tuple[int, int]:
    """A stored NHWC tensor and the TFLite padding to use on it: SAME or VALID where that says it, else a pad before."""
    if not any(map(any, pads)):
        return index, int(w.schema.Padding.VALID)
    shape = w.stored(index)
    if not force and pads == _same(shape[1:3], kernel, stride, dilation):
        return index, int(w.schema.Padding.SAME)
    table = w.const(np.array([(0, 0), *pads, (0, 0)], np.int32), f"{name}/pads")
    shape = [n + sum(p) for n, p in zip(shape, [(0, 0), *pads, (0, 0)])]
    if kind == "CONSTANT":
        return w.emit("PAD", [index, table], shape, f"{name}/padded"), int(w.schema.Padding.VALID)
    mode = w.schema.MirrorPadMode.SYMMETRIC
    return w.emit("MIRROR_PAD", [index, table], shape, f"{name}/padded", mode=mode), int(w.schema.Padding.VALID)


def _inside(size: int, out: int, kernel: int, stride: int, pads: tuple[int, int]) -> Array:
    """How many pixels of each window are not border."""
    starts = np.arange(out) * stride - pads[0]
    return np.asarray(np.minimum(starts + kernel, size) - np.maximum(starts, 0))


def _two_dimensional(node: NodeProto, shape: Sequence[int]) -> None:
    if len(shape) != 4:
        raise unsupported(node, f"works on {len(shape)} dimensions instead of 4")


OPERATORS: dict[str, Callable[[Writer, NodeProto], None]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "Resize": resize,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
}
