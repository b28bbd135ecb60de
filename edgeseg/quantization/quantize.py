"""Post-training INT8: the float graph prepared, then quantized by the scheme that a target asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from edgeseg.errors import OptionError
from edgeseg.images import Image
from edgeseg.quantization import schemes
from edgeseg.recipe import PTQ


def quantize(
    graph: Path,
    frames: Iterable[Image],
    scheme: str,
    out: Path,
    preset: str = "",
    excluded: Iterable[str] = (),
    ptq: PTQ = PTQ(),  # noqa: B008  # frozen
) -> Path:
    """Quantize a deploy graph with `frames` ([H, W, 3] uint8 BGR each); returns the file written into `out`.

    `scheme`: a module of schemes/. `preset`: the target's preset for NNCF, "" elsewhere. `excluded`: names of nodes
    (onnx_graph.layers) that stay float: their weights, and their inputs before any rounding. OptionError if the scheme
    does not offer the ranges of `ptq`.
    """
    ptq = resolve_ranges(ptq, scheme)  # before any work
    images, excluded = list(frames), frozenset(excluded)
    graph = prepare(graph, images, scheme, out, excluded, ptq)
    return quantize_prepared(graph, images, scheme, out, preset, excluded, ptq)


def quantize_prepared(
    graph: Path, frames: list[Image], scheme: str, out: Path, preset: str, excluded: frozenset[str], ptq: PTQ
) -> Path:
    """quantize, of a graph that is prepared; `ptq` with ranges of the scheme."""
    batches = [frame[None] for frame in frames]
    return schemes.get(scheme).quantize(graph, batches, out, excluded, ptq, preset=preset)


def resolve_ranges(ptq: PTQ, scheme: str) -> PTQ:
    """`ptq` with "auto" replaced by the scheme's default. OptionError for ranges that the scheme does not offer."""
    implementation = schemes.get(scheme)
    if ptq.ranges not in ("auto", *implementation.ranges):
        raise OptionError(
            f"INT8 by {implementation.title} has no ranges {ptq.ranges!r}.",
            f"It has: {', '.join(implementation.ranges)} (the first is auto).",
        )
    return dataclasses.replace(ptq, ranges=implementation.ranges[0] if ptq.ranges == "auto" else ptq.ranges)


def prepare(graph: Path, frames: list[Image], scheme: str, out: Path, excluded: frozenset[str], ptq: PTQ) -> Path:
    """The float graph with equalized channels and corrected biases, as `ptq` asks, whatever its ranges; the file, in
    `out` where it is another."""
    if not (ptq.equalize or ptq.bias):
        return graph
    import onnx

    from edgeseg.quantization.equalization import correct_biases, equalize

    model, implementation = onnx.load(str(graph)), schemes.get(scheme)
    if ptq.equalize:
        equalize(model, frames)
    if ptq.bias:
        correct_biases(model, frames, excluded, implementation.min_weight_scale, implementation.safe_scales)
    onnx.save(model, str(out / "prepared.onnx"))
    return out / "prepared.onnx"


def from_trained(graph: Path, scheme: str, out: Path) -> Path:
    """A deploy graph that is already quantized (has Q/DQ pairs), as the scheme reads it; the file written into `out`.

    OptionError if the scheme does not accept such a model.
    """
    import onnx

    from edgeseg import onnx_graph
    from edgeseg.quantization.requantize import widen_scales

    model = onnx.load(str(graph))
    implementation = schemes.get(scheme)
    if not implementation.reads_qdq:
        raise OptionError(
            f"The model is quantized already, which {implementation.title} does not read.", "Give it the float model."
        )
    if implementation.reads_qdq == "any":
        onnx_graph.store_integer_weights(model)
        if implementation.safe_scales:
            widen_scales(model, {})
    elif not onnx_graph.is_symmetric(model):
        raise OptionError(
            "The model is quantized with zero points, which TensorRT does not have.",
            "Give the float model and --calibration, or quantize it without zero points (qat: symmetric = true).",
        )
    onnx.save(model, str(out / "trained.onnx"))
    return out / "trained.onnx"


def schemes_of_training(symmetric: bool) -> tuple[str, ...]:
    """The schemes that accept a network of quantization-aware training, `symmetric` or not."""
    readers = ("any", "symmetric") if symmetric else ("any",)
    return tuple(name for name in schemes.names() if schemes.get(name).reads_qdq in readers)
