"""INT8 for TensorRT: Q/DQ pairs without zero points."""

from __future__ import annotations

from pathlib import Path

from edgeseg.errors import MissingPackage
from edgeseg.quantization.scheme import Array, Scheme
from edgeseg.quantization.schemes._onnx import RANGES, insert_pairs
from edgeseg.recipe import PTQ

OPERATORS = ("Conv", "Add")


def quantize(
    graph: Path, frames: list[Array], out: Path, excluded: frozenset[str], ptq: PTQ, *, preset: str = ""
) -> Path:
    """ONNX Q/DQ pairs for TensorRT: INT8 on both sides, every zero point 0, weights per channel, biases left float.

    Each reader of a tensor gets a pair of its own in front, so that both sides of a residual Add are quantized; there
    is no pair behind a Conv or Add, so that TensorRT can fuse the activation that follows.
    """
    try:
        from onnxruntime.quantization import QuantType
    except ImportError as error:
        raise MissingPackage("onnxruntime", "INT8 for TensorRT", "compress,onnxruntime") from error
    options = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "AddQDQPairToWeight": True,
        "DedicatedQDQPair": True,
        "OpTypesToExcludeOutputQuantization": list(OPERATORS),
    }
    return insert_pairs(graph, frames, out, ptq, list(OPERATORS), set(excluded), QuantType.QInt8, options)


SCHEME = Scheme(
    title="Q/DQ pairs for TensorRT",
    ranges=RANGES,
    quantize=quantize,
    symmetric=True,
    operators=OPERATORS,
    reads_qdq="symmetric",
)
