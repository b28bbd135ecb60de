"""INT8 for OpenVINO, by NNCF."""

from __future__ import annotations

import logging
import sys
from contextlib import redirect_stdout
from pathlib import Path

from edgeseg.errors import MissingPackage
from edgeseg.quantization.excluded import openvino_names
from edgeseg.quantization.scheme import Array, Scheme
from edgeseg.quantization.schemes._openvino import layers_with_weights, widen_scales
from edgeseg.recipe import PTQ

ESTIMATORS = {"minmax": "MINMAX", "mean": "MEAN_MINMAX", "percentile": "MEAN_QUANTILE", "mse": "HISTOGRAM"}


def quantize(
    graph: Path, frames: list[Array], out: Path, excluded: frozenset[str], ptq: PTQ, *, preset: str = ""
) -> Path:
    """OpenVINO's scheme: INT8 weights per channel, UINT8 activations per tensor.

    `preset`: mixed (activations asymmetric where that fits them better) or performance (symmetric).
    """
    try:
        import nncf
        import openvino as ov
        from nncf.quantization.advanced_parameters import OverflowFix, QuantizationParameters
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet
        from openvino.passes import ConstantFolding, Manager
    except ImportError as error:
        raise MissingPackage("nncf", "INT8 for OpenVINO", "compress,openvino") from error
    logging.getLogger("nncf").setLevel(logging.ERROR)  # nncf.set_log_level would change shared handlers, too
    model = ov.Core().read_model(graph)
    # Weights of grouped convolutions come through a Reshape. Behind it, roundings would keep them out of INT8 kernels.
    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(model)
    floats = {op.get_friendly_name(): op.input_value(1).get_node() for op in layers_with_weights(model)}
    with redirect_stdout(sys.stderr):  # for its progress bars; stdout is for results
        quantized = nncf.quantize(
            model,
            nncf.Dataset(frames),
            preset=nncf.QuantizationPreset(preset or "mixed"),
            subset_size=len(frames),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                disable_bias_correction=True,  # ours is the same for every scheme
                overflow_fix=OverflowFix.DISABLE,  # widen_scales costs less
                activations_range_estimator_params=getattr(RangeEstimatorParametersSet, ESTIMATORS[ptq.ranges]),
                # NNCF's own choice in front of depthwise convolutions is a range for each channel. One that fires in
                # few calibration frames, or in none, would be clipped where it fires: rare classes suffer.
                activations_quantization_params=QuantizationParameters(per_channel=False),
            ),
            ignored_scope=nncf.IgnoredScope(names=openvino_names(model, excluded)) if excluded else None,
        )
    widen_scales(quantized, {name: node.get_data() for name, node in floats.items() if hasattr(node, "get_data")})
    ov.save_model(quantized, out / "quantized.xml", compress_to_fp16=False)
    return out / "quantized.xml"


SCHEME = Scheme(
    title="NNCF (OpenVINO)",
    ranges=tuple(ESTIMATORS),
    quantize=quantize,
    safe_scales=True,
    min_weight_scale=0.01,  # of NNCF's fake_quantize.py
    reads_qdq="any",
    # NNCF needs 3 s for a layer; OpenVINO turns ONNX Runtime's Q/DQ pairs into the same INT8 kernels.
    layer_scheme="qdq",
)
