"""INT8 for TFLite, by AI Edge Quantizer."""

from __future__ import annotations

from pathlib import Path

from edgeseg.quantization.excluded import mark_float, unmark_outputs
from edgeseg.quantization.scheme import Array, Scheme
from edgeseg.quantization.schemes._onnx import RANGES
from edgeseg.recipe import PTQ


def quantize(
    graph: Path, frames: list[Array], out: Path, excluded: frozenset[str], ptq: PTQ, *, preset: str = ""
) -> Path:
    """TFLite's scheme: per-channel INT8 weights, INT8 activations, float logits.

    A tensor has one type in TFLite, so the layers that compute an excluded layer's inputs stay float, too.
    """
    import onnx

    from edgeseg.quantization.ranges import estimate_ranges
    from edgeseg.tflite.algebra import FLOAT
    from edgeseg.tflite.convert import convert
    from edgeseg.tflite.quantize import full

    model = onnx.load(str(graph))
    mark_float(model, excluded, FLOAT)
    ranges = {} if ptq.ranges == "minmax" else estimate_ranges(model, [frame[0] for frame in frames], ptq.ranges)
    data = full(convert(model), frames, ranges)
    (out / "quantized.tflite").write_bytes(unmark_outputs(data, FLOAT) if excluded else data)
    return out / "quantized.tflite"


SCHEME = Scheme(title="AI Edge Quantizer (TFLite)", ranges=RANGES, quantize=quantize, rounds_output=True)
