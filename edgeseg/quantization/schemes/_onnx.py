"""Q/DQ pairs in ONNX graphs, inserted by ONNX Runtime's quantizer with our ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.quantization.scheme import Array
from edgeseg.recipe import PTQ

RANGES = ("minmax", "mean", "percentile", "mse", "entropy")


def insert_pairs(
    graph: Path, frames: list[Array], out: Path, ptq: PTQ, operators: list[str], excluded: set[str], activations: Any,
    options: dict[str, Any],
) -> Path:  # fmt: skip
    """Quantize an ONNX file: INT8 weights per channel, Q/DQ pairs around `operators` but the `excluded` nodes.

    `activations`: their QuantType. `options`: ONNX Runtime's extra options; with any, activations are symmetric.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData

    from edgeseg.quantization.ranges import estimate_ranges

    model = onnx.load(str(graph))
    ranges = estimate_ranges(model, [frame[0] for frame in frames], ptq.ranges, bool(options))
    ends = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    calibration = TensorsData(CalibrationMethod.MinMax, ends)
    quantizer = QDQQuantizer(
        model, True, False, QuantType.QInt8, activations, calibration, [], sorted(excluded), operators, options
    )  # fmt: skip
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(out / "quantized.onnx"), False)
    return out / "quantized.onnx"
