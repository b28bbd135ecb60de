"""Post-training INT8: one function per rule set that a target can ask for."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.compression.keep import mark_float, openvino_names, read_unquantised, unmark_outputs, with_makers
from edgeseg.data.images import Image
from edgeseg.errors import MissingPackage, OptionError, unknown


def quantize(
    graph: Path, frames: Iterable[Image], rules: str, out: Path, preset: str = "", keep: Iterable[str] = ()
) -> Path:
    """Quantise a deploy graph with `frames` ([H, W, 3] uint8 BGR each); returns the file written into `out`.

    `preset`: what those rules choose by device, a target's; "" where they have no choice. `keep`: names of nodes
    (graph.layers) that stay float: their weights, and their inputs as they were before anybody quantised them.
    """
    if rules not in RULES:
        raise unknown("quantiser", rules, RULES)
    given = {"preset": preset} if preset else {}
    return RULES[rules](graph, [frame[None] for frame in frames], out, frozenset(keep), **given)


def nncf(graph: Path, frames: list[Any], out: Path, keep: frozenset[str], preset: str = "mixed") -> Path:
    """OpenVINO's own rules: per-channel INT8 weights, UINT8 activations, bias correction.

    `preset`: mixed (activations asymmetric where that fits them better) or performance (symmetric).
    """
    try:
        import nncf
        import openvino as ov
    except ImportError as error:
        raise MissingPackage("nncf", "INT8 for OpenVINO", "compress,openvino") from error
    logging.getLogger("nncf").setLevel(logging.ERROR)  # nncf.set_log_level would change shared handlers, too
    model = ov.Core().read_model(graph)
    with redirect_stdout(sys.stderr):  # its progress bars; standard output belongs to --json -
        quantised = nncf.quantize(
            model,
            nncf.Dataset(frames),
            preset=nncf.QuantizationPreset(preset),
            subset_size=len(frames),
            ignored_scope=nncf.IgnoredScope(names=openvino_names(model, keep)) if keep else None,
        )
    ov.save_model(quantised, out / "quantised.xml", compress_to_fp16=False)
    return out / "quantised.xml"


def qdq(graph: Path, frames: list[Any], out: Path, keep: frozenset[str]) -> Path:
    """ONNX Q/DQ pairs for ONNX Runtime's CPU kernels: per-channel INT8 weights, UINT8 activations."""
    try:
        import onnx
        from onnxruntime import quantization as ort
    except ImportError as error:
        raise MissingPackage("onnxruntime", "INT8 for ONNX Runtime", "compress,onnxruntime") from error
    around = sorted(with_makers(onnx.load(str(graph)), keep))
    ort.quantize_static(
        str(graph),
        str(out / "quantised.onnx"),
        _reader(ort, frames),
        quant_format=ort.QuantFormat.QDQ,
        per_channel=True,
        activation_type=ort.QuantType.QUInt8,
        weight_type=ort.QuantType.QInt8,
        # The preprocessing and the float logits at the end stay float.
        nodes_to_exclude=[
            "pre_float",
            "pre_nchw",
            "pre_rgb",
            "pre_Sub",
            "pre_Mul",
            "logits",
            "with_background",
            *around,
        ],
        extra_options={"CalibMovingAverage": False},
    )
    if keep:
        read_unquantised(out / "quantised.onnx", keep)
    return out / "quantised.onnx"


def symmetric(graph: Path, frames: list[Any], out: Path, keep: frozenset[str]) -> Path:
    """ONNX Q/DQ pairs for TensorRT: INT8 on both sides, every zero point 0, weights per channel, biases left float.

    Each reader of a tensor gets a pair of its own in front, so that both sides of a residual Add are quantised; there
    is none behind a Conv or Add, so that TensorRT can fuse the activation that follows.
    """
    try:
        from onnxruntime import quantization as ort
    except ImportError as error:
        raise MissingPackage("onnxruntime", "INT8 for TensorRT", "compress,onnxruntime") from error
    kinds = ["Conv", "Add"]
    ort.quantize_static(
        str(graph),
        str(out / "quantised.onnx"),
        _reader(ort, frames),
        quant_format=ort.QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=kinds,
        nodes_to_exclude=sorted(keep),
        activation_type=ort.QuantType.QInt8,
        weight_type=ort.QuantType.QInt8,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
            "DedicatedQDQPair": True,
            "OpTypesToExcludeOutputQuantization": kinds,
            "CalibMovingAverage": False,
        },
    )
    return out / "quantised.onnx"


def _reader(ort: Any, frames: list[Any]) -> Any:
    """The frames as ONNX Runtime's quantiser asks for them."""
    left = iter(frames)

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc,name-defined,unused-ignore]
        def get_next(self) -> dict[str, Any] | None:
            frame = next(left, None)
            return None if frame is None else {"frame": frame}

    return Reader()


def entropy(graph: Path, frames: list[Any], out: Path, keep: frozenset[str]) -> Path:
    """The float graph, and beside it the frames [N, H, W, 3] from which TensorRT's calibrator finds ranges itself."""
    if keep:
        raise OptionError(
            "TensorRT's own calibrator chooses each layer's precision itself; none can be kept in float.",
            "Without --entropy it can: then Q/DQ pairs say what is INT8.",
        )
    np.save(out / "quantised.npy", np.concatenate(frames))
    shutil.copyfile(graph, out / "quantised.onnx")
    return out / "quantised.onnx"


def litert(graph: Path, frames: list[Any], out: Path, keep: frozenset[str]) -> Path:
    """TFLite's own rules: per-channel INT8 weights, INT8 activations, float logits.

    A tensor has one type there: what makes a kept layer's input stays float, too, back to the layer before.
    """
    import onnx

    from edgeseg.tflite.algebra import FLOAT
    from edgeseg.tflite.convert import convert
    from edgeseg.tflite.quantize import full

    model = onnx.load(str(graph))
    mark_float(model, keep, FLOAT)
    data = full(convert(model), frames)
    (out / "quantised.tflite").write_bytes(unmark_outputs(data, FLOAT) if keep else data)
    return out / "quantised.tflite"


RULES: dict[str, Callable[..., Path]] = {
    "nncf": nncf,
    "qdq": qdq,
    "symmetric": symmetric,
    "entropy": entropy,
    "litert": litert,
}
