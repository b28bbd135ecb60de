"""Ranges: the span of each activation that INT8 covers, measured on calibration frames through the float network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from edgeseg.errors import MissingPackage
from edgeseg.images import Image
from edgeseg.onnx_graph.index import element_types

Array = NDArray[Any]
Span = tuple[float, float]
BINS = 2048
TAIL = 1e-4  # share of values that `percentile` leaves out at either end
STEPS = np.linspace(1, 0.2, 81)  # of an end, that `mse` tries
LEVELS = 128  # of |x| in `entropy`


def find(
    model: ModelProto, frames: Sequence[Image], how: str, symmetric: bool = False, names: Collection[str] = ()
) -> dict[str, Span]:
    """The range of every float activation of a deploy graph, or of `names`, over `frames` ([H, W, 3] uint8 BGR).

    `how`: see recipe.PTQ. `symmetric`: whether it will be rounded without a zero point.
    """
    names = sorted(names or activations(model))
    ends = np.array([[(x.min(), x.max()) for x in row] for row in values(model, frames, names)])
    low, high = (ends.mean(0) if how == "mean" else np.stack([ends[..., 0].min(0), ends[..., 1].max(0)], -1)).T
    if how in ("minmax", "mean"):
        return {name: (float(a), float(b)) for name, a, b in zip(names, low, high)}
    step = np.maximum(high - low, 1e-30) / BINS
    counts = np.zeros((len(names), BINS))
    for row in values(model, frames, names):
        for i, x in enumerate(row):
            bins = np.minimum(((x.ravel() - low[i]) / step[i]).astype(np.int32), BINS - 1)
            counts[i] += np.bincount(bins, minlength=BINS)
    edges = low[:, None] + step[:, None] * np.arange(BINS + 1)
    return {name: CLIPPING[how](h, e, symmetric) for name, h, e in zip(names, counts, edges)}


def percentile(counts: Array, edges: Array, symmetric: bool) -> Span:
    """Without the smallest and largest 0.01 % of all values."""
    below = np.cumsum(counts) / counts.sum()
    first, last = np.searchsorted(below, [TAIL, 1 - TAIL])
    return float(edges[first]), float(edges[min(last, BINS - 1) + 1])


def mse(counts: Array, edges: Array, symmetric: bool) -> Span:
    """The least squared error of rounding and clipping, over shares of the upper end, then of the lower."""
    centers = (edges[1:] + edges[:-1]) / 2

    def error(span: Span) -> float:
        scale, zero = grid(*span, symmetric)
        least = -127 if symmetric else 0
        rounded = (np.clip(np.round(centers / scale) + zero, least, least + (254 if symmetric else 255)) - zero) * scale
        return float(counts @ np.square(centers - rounded))

    low, high = float(edges[0]), float(edges[-1])
    if symmetric:
        top = max(-low, high)
        return min(((max(low, -top * share), min(high, top * share)) for share in STEPS), key=error)
    low, high = min(((low, high * share) for share in STEPS), key=error)
    return min(((low * share, high) for share in STEPS), key=error)


def entropy(counts: Array, edges: Array, symmetric: bool) -> Span:
    """The threshold t of |x| at which 128 levels lose the least: by KL divergence (Migacz 2017, "8-bit Inference").

    P is the distribution of |x| below t with all that lies above in its last bin, Q the same in 128 levels, without.
    """
    centers = np.abs(edges[1:] + edges[:-1]) / 2
    top = float(np.abs(edges).max())
    folded, _ = np.histogram(centers, BINS, (0, top), weights=counts)
    folded[0] = folded[1]  # zeros, of which there are many behind a ReLU, are exact at every scale
    best, chosen = np.inf, BINS
    for count in range(LEVELS, BINS + 1, 8):
        p, inside = folded[:count].copy(), folded[:count]
        p[-1] += folded[count:].sum()
        level = np.arange(count) * LEVELS // count
        filled = np.maximum(np.bincount(level, inside > 0), 1)
        q = np.where(inside > 0, (np.bincount(level, inside) / filled)[level], 0)
        some = p > 0
        if (q[some] > 0).all() and some.any():
            p, q = p[some] / p.sum(), q[some] / q.sum()
            divergence = float(p @ np.log(p / q))
            best, chosen = min((best, chosen), (divergence, count))
    t = top * chosen / BINS
    return max(float(edges[0]), -t), min(float(edges[-1]), t)


CLIPPING: dict[str, Callable[[Array, Array, bool], Span]] = {"percentile": percentile, "mse": mse, "entropy": entropy}


def grid(low: float, high: float, symmetric: bool) -> tuple[float, int]:
    """(scale, zero point) of INT8 (symmetric) or UINT8 over a range; 0 is always one of the values."""
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric:
        return max(-low, high, 1e-30) / 127, 0
    scale = max(high - low, 1e-30) / 255
    return scale, round(-low / scale)


def round_weights(weights: Array, axis: int, least: float = 0.0) -> NDArray[np.float32]:
    """INT8 and back: symmetric, one scale for each channel of `axis`, none under `least` of the largest scale."""
    others = tuple(i for i in range(weights.ndim) if i != axis % weights.ndim)
    scale = np.abs(weights).max(others, keepdims=True) / 127
    scale = np.maximum(scale, max(least * float(scale.max()), 1e-30))
    return np.asarray(np.clip(np.round(weights / scale), -127, 127) * scale, np.float32)


def activations(model: ModelProto) -> list[str]:
    """The names of all float tensors that nodes of the graph compute."""
    types = element_types(model)
    return [name for node in model.graph.node for name in node.output if types.get(name) == TensorProto.FLOAT]


def values(model: ModelProto, frames: Sequence[Image], names: Sequence[str]) -> Iterator[list[Array]]:
    """These tensors of a deploy graph, frame by frame."""
    if not names:
        return iter(())
    model = onnx.ModelProto.FromString(model.SerializeToString())
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return run(model, frames)


def run(model: ModelProto, frames: Sequence[Image]) -> Iterator[list[Array]]:
    """The outputs of a deploy graph for each frame, in float32, by ONNX Runtime or else OpenVINO."""
    compute = _runner(model.SerializeToString())
    for frame in frames:
        yield compute(frame[None])


def _runner(data: bytes) -> Callable[[Array], list[Array]]:
    try:
        return _with_onnxruntime(data)
    except ImportError:
        pass
    try:
        return _with_openvino(data)
    except ImportError:
        raise MissingPackage("openvino or onnxruntime", "Measuring a network's tensors", "compress,openvino") from None


def _with_onnxruntime(data: bytes) -> Callable[[Array], list[Array]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Higher levels move Q/DQ pairs about and turn them into integer kernels.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda frame: list(session.run(None, {"frame": frame}))


def _with_openvino(data: bytes) -> Callable[[Array], list[Array]]:
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(core.read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def compute(frame: Array) -> list[Array]:
        results = compiled(frame)
        return [np.array(results[output]) for output in compiled.outputs]

    return compute
