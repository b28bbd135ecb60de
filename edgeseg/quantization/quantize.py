"""Post-training INT8: one function per rule set that a target can ask for."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.errors import MissingPackage, OptionError, unknown
from edgeseg.images import Image
from edgeseg.quantization.excluded import mark_float, openvino_names, read_unquantized, unmark_outputs, with_makers
from edgeseg.recipe import PTQ


def quantize(
    graph: Path,
    frames: Iterable[Image],
    rules: str,
    out: Path,
    preset: str = "",
    keep: Iterable[str] = (),
    ptq: PTQ = PTQ(),  # noqa: B008  # frozen
) -> Path:
    """Quantize a deploy graph with `frames` ([H, W, 3] uint8 BGR each); returns the file written into `out`.

    `preset`: what those rules choose by device, a target's; "" where they have no choice. `keep`: names of nodes
    (onnx_graph.layers) that stay float: their weights, and their inputs as they were before anybody quantized them.
    OptionError where the rules cannot do what `ptq` asks for.
    """
    ptq = resolved(ptq, rules)
    kept, given = list(frames), {"preset": preset} if preset else {}
    graph = _prepared(graph, kept, rules, out, frozenset(keep), ptq)
    return RULES[rules](graph, [frame[None] for frame in kept], out, frozenset(keep), ptq, **given)


def resolved(ptq: PTQ, rules: str) -> PTQ:
    """`ptq` as these rules will have it: with `auto` named. OptionError for ranges that they do not have."""
    if rules not in RULES:
        raise unknown("quantizer", rules, RULES)
    known = RANGES[rules]
    if ptq.ranges not in ("auto", *known):
        raise OptionError(
            f"INT8 by {TITLES[rules]} has no ranges {ptq.ranges!r}.", f"It has: {', '.join(known)} (the first is auto)."
        )
    return dataclasses.replace(ptq, ranges=known[0] if ptq.ranges == "auto" else ptq.ranges)


def _prepared(graph: Path, frames: list[Image], rules: str, out: Path, keep: frozenset[str], ptq: PTQ) -> Path:
    """The float graph as it is best quantized."""
    if not (ptq.equalize or ptq.bias):
        return graph
    import onnx

    from edgeseg.quantization.equalization import correct_biases, equalize

    model = onnx.load(str(graph))
    if ptq.equalize:
        equalize(model, frames)
    if ptq.bias:
        correct_biases(model, frames, keep, LEAST_SCALE.get(rules, 0.0))
    onnx.save(model, str(out / "prepared.onnx"))
    return out / "prepared.onnx"


def as_trained(graph: Path, rules: str, out: Path) -> Path:
    """A deploy graph that came with Q/DQ pairs, as a target with these rules wants it; the file written into `out`."""
    import onnx

    from edgeseg import onnx_graph as surgery

    model = onnx.load(str(graph))
    if rules not in ("nncf", "qdq", "symmetric"):
        raise OptionError(
            f"The model is quantized already, which {TITLES[rules]} does not read.", "Give it the float model."
        )
    if rules != "symmetric":
        surgery.store_integer_weights(model)
    elif not surgery.is_symmetric(model):
        raise OptionError(
            "The model is quantized with zero points, TensorRT has none.",
            "Train it with symmetric = true in the recipe's [qat].",
        )
    onnx.save(model, str(out / "trained.onnx"))
    return out / "trained.onnx"


def nncf(graph: Path, frames: list[Any], out: Path, keep: frozenset[str], ptq: PTQ, preset: str = "mixed") -> Path:
    """OpenVINO's own rules: INT8 weights per channel, UINT8 activations per tensor.

    `preset`: mixed (activations asymmetric where that fits them better) or performance (symmetric).
    """
    try:
        import nncf
        import openvino as ov
        from nncf.quantization.advanced_parameters import QuantizationParameters
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
    with redirect_stdout(sys.stderr):  # its progress bars; standard output belongs to --json -
        quantized = nncf.quantize(
            model,
            nncf.Dataset(frames),
            preset=nncf.QuantizationPreset(preset),
            subset_size=len(frames),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                disable_bias_correction=True,  # _prepared has done it
                activations_range_estimator_params=getattr(RangeEstimatorParametersSet, ESTIMATORS[ptq.ranges]),
                # NNCF's own choice in front of depthwise convolutions is a range for each channel. One that fires in
                # few calibration frames, or in none, would be clipped where it fires: rare classes suffer.
                activations_quantization_params=QuantizationParameters(per_channel=False),
            ),
            ignored_scope=nncf.IgnoredScope(names=openvino_names(model, keep)) if keep else None,
        )
    ov.save_model(quantized, out / "quantized.xml", compress_to_fp16=False)
    return out / "quantized.xml"


def qdq(graph: Path, frames: list[Any], out: Path, keep: frozenset[str], ptq: PTQ) -> Path:
    """ONNX Q/DQ pairs for ONNX Runtime's CPU kernels: per-channel INT8 weights, UINT8 activations."""
    try:
        import onnx
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
    except ImportError as error:
        raise MissingPackage("onnxruntime", "INT8 for ONNX Runtime", "compress,onnxruntime") from error
    # The preprocessing and the float logits at the end stay float.
    whole = ("pre_float", "pre_nchw", "pre_rgb", "pre_Sub", "pre_Mul", "logits", "with_background")
    around = with_makers(onnx.load(str(graph)), keep)
    kinds = sorted({*QDQRegistry, *QLinearOpsRegistry})
    _pairs(graph, frames, out, ptq, kinds, {*whole, *around}, QuantType.QUInt8, {})
    if keep:
        read_unquantized(out / "quantized.onnx", keep)
    return out / "quantized.onnx"


def symmetric(graph: Path, frames: list[Any], out: Path, keep: frozenset[str], ptq: PTQ) -> Path:
    """ONNX Q/DQ pairs for TensorRT: INT8 on both sides, every zero point 0, weights per channel, biases left float.

    Each reader of a tensor gets a pair of its own in front, so that both sides of a residual Add are quantized; there
    is none behind a Conv or Add, so that TensorRT can fuse the activation that follows.
    """
    try:
        from onnxruntime.quantization import QuantType
    except ImportError as error:
        raise MissingPackage("onnxruntime", "INT8 for TensorRT", "compress,onnxruntime") from error
    kinds = ["Conv", "Add"]
    options = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "AddQDQPairToWeight": True,
        "DedicatedQDQPair": True,
        "OpTypesToExcludeOutputQuantization": kinds,
    }
    return _pairs(graph, frames, out, ptq, kinds, set(keep), QuantType.QInt8, options)


def _pairs(
    graph: Path, frames: list[Any], out: Path, ptq: PTQ, kinds: list[str], excluded: set[str], activations: Any,
    options: dict[str, Any],
) -> Path:  # fmt: skip
    """ONNX Runtime's quantizer, with our ranges: INT8 weights per channel, Q/DQ pairs around operators of `kinds`."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData

    from edgeseg.quantization.ranges import find

    model = onnx.load(str(graph))
    spans = find(model, [frame[0] for frame in frames], ptq.ranges, bool(options))
    ends = {name: (np.float32(low), np.float32(high)) for name, (low, high) in spans.items()}
    found = TensorsData(CalibrationMethod.MinMax, ends)
    quantizer = QDQQuantizer(
        model, True, False, QuantType.QInt8, activations, found, [], sorted(excluded), kinds, options
    )  # fmt: skip
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(out / "quantized.onnx"), False)
    return out / "quantized.onnx"


def entropy(graph: Path, frames: list[Any], out: Path, keep: frozenset[str], ptq: PTQ) -> Path:
    """The float graph, and beside it the frames [N, H, W, 3] from which TensorRT's calibrator finds ranges itself."""
    if keep:
        raise OptionError(
            "TensorRT's own calibrator chooses each layer's precision itself; none can be kept in float.",
            "Without --entropy it can: then Q/DQ pairs say what is INT8.",
        )
    np.save(out / "quantized.npy", np.concatenate(frames))
    shutil.copyfile(graph, out / "quantized.onnx")
    return out / "quantized.onnx"


def litert(graph: Path, frames: list[Any], out: Path, keep: frozenset[str], ptq: PTQ) -> Path:
    """TFLite's own rules: per-channel INT8 weights, INT8 activations, float logits.

    A tensor has one type there: what makes a kept layer's input stays float, too, back to the layer before.
    """
    import onnx

    from edgeseg.quantization.ranges import find
    from edgeseg.tflite.algebra import FLOAT
    from edgeseg.tflite.convert import convert
    from edgeseg.tflite.quantize import full

    model = onnx.load(str(graph))
    mark_float(model, keep, FLOAT)
    spans = {} if ptq.ranges == "minmax" else find(model, [frame[0] for frame in frames], ptq.ranges)
    data = full(convert(model), frames, spans)
    (out / "quantized.tflite").write_bytes(unmark_outputs(data, FLOAT) if keep else data)
    return out / "quantized.tflite"


TITLES = {
    "nncf": "NNCF (OpenVINO)",
    "qdq": "ONNX Runtime's rules",
    "symmetric": "TensorRT's rules",
    "entropy": "TensorRT's own calibrator",
    "litert": "TFLite's rules",
}
OURS = ("minmax", "mean", "percentile", "mse", "entropy")
ESTIMATORS = {"minmax": "MINMAX", "mean": "MEAN_MINMAX", "percentile": "MEAN_QUANTILE", "mse": "HISTOGRAM"}
# What each can do about ranges; the first is what it does by itself.
# NNCF lets no channel of weights have a scale under this share of the largest (1 % in its fake_quantize.py).
LEAST_SCALE = {"nncf": 0.01}
RANGES = {"nncf": tuple(ESTIMATORS), "qdq": OURS, "symmetric": OURS, "entropy": ("entropy",), "litert": OURS}
RULES: dict[str, Callable[..., Path]] = {
    "nncf": nncf,
    "qdq": qdq,
    "symmetric": symmetric,
    "entropy": entropy,
    "litert": litert,
}
