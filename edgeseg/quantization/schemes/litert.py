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
    """TFLite's own rules: per-channel INT8 weights, INT8 activations, float logits.

    A tensor has one type there: what makes a kept layer's input stays float, too, back to the layer before.
    """
    import onnx

    from edgeseg.quantization.ranges import find
    from edgeseg.tflite.algebra import FLOAT
    from edgeseg.tflite.convert import convert
    from edgeseg.tflite.quantize import full

    model = onnx.load(str(graph))
    mark_float(model, excluded, FLOAT)
    spans = {} if ptq.ranges == "minmax" else find(model, [frame[0] for frame in frames], ptq.ranges)
    data = full(convert(model), frames, spans)
    (out / "quantized.tflite").write_bytes(unmark_outputs(data, FLOAT) if excluded else data)
    return out / "quantized.tflite"


SCHEME = Scheme(title="TFLite's rules", ranges=RANGES, quantize=quantize, rounds_output=True)
