"""Pads of convolution and pooling windows: as ONNX states them, and as TFLite's SAME, VALID or a PAD before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto

from edgeseg.onnx_graph.index import attribute
from edgeseg.tflite.flatbuffer import Array
from edgeseg.tflite.writer import Writer, unsupported

Pads = list[tuple[int, int]]  # (before, after) of H and W


def window_pads(
    node: NodeProto, size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Pads:
    """The pads a node asks for, also as auto_pad."""
    auto_pad = attribute(node, "auto_pad", b"NOTSET")
    if auto_pad in (b"SAME_UPPER", b"SAME_LOWER"):
        same = same_pads(size, kernel, stride, dilation)
        return same if auto_pad == b"SAME_UPPER" else [(b, a) for a, b in same]
    pads = [0, 0, 0, 0] if auto_pad == b"VALID" else attribute(node, "pads", [0, 0, 0, 0])
    return [(pads[0], pads[2]), (pads[1], pads[3])]


def same_pads(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Pads:
    """The pads that TFLite's SAME means: what is odd goes behind."""
    totals = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in zip(size, kernel, stride, dilation)]
    return [(t // 2, t - t // 2) for t in totals]


def ceil_pads(node: NodeProto, w: Writer, pads: Pads, kernel: Sequence[int], stride: Sequence[int]) -> Pads:
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
    if not force and pads == same_pads(shape[1:3], kernel, stride, dilation):
        return index, int(w.schema.Padding.SAME)
    table = w.const(np.array([(0, 0), *pads, (0, 0)], np.int32), f"{name}/pads")
    shape = [n + sum(p) for n, p in zip(shape, [(0, 0), *pads, (0, 0)])]
    if kind == "CONSTANT":
        return w.emit("PAD", [index, table], shape, f"{name}/padded"), int(w.schema.Padding.VALID)
    mode = w.schema.MirrorPadMode.SYMMETRIC
    return w.emit("MIRROR_PAD", [index, table], shape, f"{name}/padded", mode=mode), int(w.schema.Padding.VALID)


def pixels_inside(size: int, out: int, kernel: int, stride: int, pads: tuple[int, int]) -> Array:
    """How many pixels of each window are not border."""
    starts = np.arange(out) * stride - pads[0]
    return np.asarray(np.minimum(starts + kernel, size) - np.maximum(starts, 0))


def require_images(node: NodeProto, shape: Sequence[int]) -> None:
    if len(shape) != 4:
        raise unsupported(node, f"works on {len(shape)} dimensions instead of 4")
