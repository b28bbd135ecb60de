"""Resize in its modes and coordinate conventions, and DepthToSpace (pixel shuffle)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import NodeProto

from edgeseg.onnx_graph.index import attribute
from edgeseg.tflite.flatbuffer import Array
from edgeseg.tflite.shapes import take
from edgeseg.tflite.windows import require_images
from edgeseg.tflite.writer import NHWC, Writer, unsupported


def resize(w: Writer, node: NodeProto) -> None:
    """RESIZE_BILINEAR or RESIZE_NEAREST_NEIGHBOR; nearest sampling that TFLite lacks as GATHER along each axis."""
    x, name = node.input[0], node.output[0]
    before, after = w.shape(x), w.shape(name)
    require_images(node, before)
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


def depth_to_space(w: Writer, node: NodeProto) -> None:
    """TFLite expects the block before the channels (DCR); for CRD (pixel shuffle) the channels are reordered first."""
    x, name, block = node.input[0], node.output[0], attribute(node, "blocksize", 1)
    channels = w.shape(name)[1]
    if attribute(node, "mode", b"DCR") == b"CRD":
        w.shapes[f"{name}/sorted"] = list(w.shape(x))
        take(w, x, f"{name}/sorted", 1, np.arange(w.shape(x)[1]).reshape(channels, block * block).T.ravel())
        x = f"{name}/sorted"
    w.compute(name, "DEPTH_TO_SPACE", [w.get(x, NHWC)], NHWC, blockSize=block)


OPERATORS: dict[str, Callable[[Writer, NodeProto], None]] = {"Resize": resize, "DepthToSpace": depth_to_space}
