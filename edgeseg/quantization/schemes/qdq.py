"""INT8 for ONNX Runtime: Q/DQ pairs with UINT8 activations."""

from __future__ import annotations

from pathlib import Path

from edgeseg.errors import MissingPackage
from edgeseg.quantization.excluded import read_unquantized, with_producers
from edgeseg.quantization.requantize import float_weights, widen_scales
from edgeseg.quantization.scheme import Array, Scheme
from edgeseg.quantization.schemes._onnx import RANGES, insert_pairs
from edgeseg.recipe import PTQ


def quantize(
    graph: Path, frames: list[Array], out: Path, excluded: frozenset[str], ptq: PTQ, *, preset: str = ""
) -> Path:
    """ONNX Q/DQ pairs for ONNX Runtime's CPU kernels: per-channel INT8 weights, UINT8 activations."""
    try:
        import onnx
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
    except ImportError as error:
        raise MissingPackage("onnxruntime", "INT8 for ONNX Runtime", "compress,onnxruntime") from error
    # The preprocessing and the logits stay float.
    always_float = (
        "pre_float",
        "pre_nchw",
        "pre_rgb",
        "pre_Sub",
        "pre_Mul",
        "pre_channels",
        "logits",
        "with_background",
    )
    model = onnx.load(str(graph))
    excluded_nodes = with_producers(model, excluded)
    operators = sorted({*QDQRegistry, *QLinearOpsRegistry})
    insert_pairs(graph, frames, out, ptq, operators, {*always_float, *excluded_nodes}, QuantType.QUInt8, {})
    quantized = onnx.load(str(out / "quantized.onnx"))
    widen_scales(quantized, float_weights(model))
    onnx.save(quantized, str(out / "quantized.onnx"))
    if excluded:
        read_unquantized(out / "quantized.onnx", excluded)
    return out / "quantized.onnx"


SCHEME = Scheme(
    title="ONNX Runtime", ranges=RANGES, quantize=quantize, safe_scales=True, rounds_output=True, reads_qdq="any"
)
