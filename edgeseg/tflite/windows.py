"""Pads of convolution and pooling windows: as ONNX states them, and as TFLite's SAME, VALID or a PAD before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from edgeseg.onnx_graph.index import attribute
from edgeseg.tflite.flatbuffer import Array
from edgeseg.tflite.writer import Writer, unsupported

Pads = list[tuple[int, int]]  # (before, after) of H and W


@dataclass(frozen=True)
class Window:
    """Kernel size, stride and dilation of a convolution or pool, each (rows, columns)."""

    kernel: Sequence[int]
    stride: Sequence[int]
    dilation: Sequence[int] = (1, 1)

    @classmethod
    def of(cls, node: NodeProto, kernel: Sequence[int]) -> Window:
        return cls(kernel, *(tuple(attribute(node, key, [1, 1])) for key in ("strides", "dilations")))


def window_pads(node: NodeProto, size: Sequence[int], window: Window) -> Pads:
    """The pads of a node on an image of `size`, given or by auto_pad."""
    auto_pad = attribute(node, "auto_pad", b"NOTSET")
    if auto_pad in (b"SAME_UPPER", b"SAME_LOWER"):
        same = same_pads(size, window)
        return same if auto_pad == b"SAME_UPPER" else [(b, a) for a, b in same]
    pads = [0, 0, 0, 0] if auto_pad == b"VALID" else attribute(node, "pads", [0, 0, 0, 0])
    return [(pads[0], pads[2]), (pads[1], pads[3])]


def same_pads(size: Sequence[int], window: Window) -> Pads:
    """The pads of TFLite's SAME: where their sum is odd, the larger goes behind."""
    dims = zip(size, window.kernel, window.stride, window.dilation)
    totals = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in dims]
    return [(t // 2, t - t // 2) for t in totals]


def ceil_pads(node: NodeProto, w: Writer, pads: Pads, window: Window) -> Pads:
    """`pads` enlarged behind to the reach of a pool with ceil_mode."""
    if not attribute(node, "ceil_mode", 0):
        return pads
    size, out = w.shape(node.input[0])[2:], w.shape(node.output[0])[2:]
    if any((o - 1) * s >= n + p for o, s, n, (p, _) in zip(out, window.stride, size, pads)):
        raise unsupported(node, "has a ceil_mode whose last window holds nothing but border")
    dims = zip(out, window.stride, window.kernel, size, pads)
    ends = [(o - 1) * s + k - n - p for o, s, k, n, (p, _) in dims]
    return [(a, max(b, end)) for (a, b), end in zip(pads, ends)]


def padded(
    w: Writer, index: int, pads: Pads, window: Window, name: str, *, mirror: bool = False, explicit: bool = False
) -> tuple[int, int]:
    """(stored NHWC tensor, TFLite padding): SAME or VALID where that is equal, else VALID behind a PAD.

    The PAD holds zeros, or with `mirror` the image's border reflected; `explicit` never uses SAME.
    """
    valid = int(w.schema.Padding.VALID)
    if not any(map(any, pads)):
        return index, valid
    if not explicit and pads == same_pads(w.stored(index)[1:3], window):
        return index, int(w.schema.Padding.SAME)
    all_pads = [(0, 0), *pads, (0, 0)]
    inputs = [index, w.const(np.array(all_pads, np.int32), f"{name}/pads")]
    shape = [n + sum(p) for n, p in zip(w.stored(index), all_pads)]
    if mirror:
        return w.emit("MIRROR_PAD", inputs, shape, f"{name}/padded", mode=w.schema.MirrorPadMode.SYMMETRIC), valid
    return w.emit("PAD", inputs, shape, f"{name}/padded"), valid


def pixels_inside(size: int, out: int, kernel: int, stride: int, pads: tuple[int, int]) -> Array:
    """How many pixels of each window are not border."""
    starts = np.arange(out) * stride - pads[0]
    return np.asarray(np.minimum(starts + kernel, size) - np.maximum(starts, 0))


def require_images(node: NodeProto, shape: Sequence[int]) -> None:
    if len(shape) != 4:
        raise unsupported(node, f"works on {len(shape)} dimensions instead of 4")
