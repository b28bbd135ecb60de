"""Post-training INT8: one function per rule set that a target can ask for."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from edgeseg.data.images import Image
from edgeseg.errors import MissingPackage, unknown


def quantize(graph: Path, frames: Iterable[Image], rules: str, out: Path) -> Path:
    """Quantise a deploy graph with `frames` ([H, W, 3] uint8 BGR each); returns the file written into `out`."""
    if rules not in RULES:
        raise unknown("quantiser", rules, RULES)
    return RULES[rules](graph, [frame[None] for frame in frames], out)


def nncf(graph: Path, frames: list[Any], out: Path) -> Path:
    """OpenVINO's own rules: per-channel INT8 weights, asymmetric UINT8 activations, bias correction."""
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
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(frames),
        )
    ov.save_model(quantised, out / "quantised.xml", compress_to_fp16=False)
    return out / "quantised.xml"


def qdq(graph: Path, frames: list[Any], out: Path) -> Path:
    """ONNX Q/DQ pairs for ONNX Runtime's CPU kernels: per-channel INT8 weights, UINT8 activations."""
    try:
        from onnxruntime import quantization as ort
    except ImportError as error:
        raise MissingPackage("onnxruntime", "INT8 for ONNX Runtime", "compress,onnxruntime") from error

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            self.left = iter(frames)

        def get_next(self) -> dict[str, Any] | None:
            frame = next(self.left, None)
            return None if frame is None else {"frame": frame}

    ort.quantize_static(
        str(graph),
        str(out / "quantised.onnx"),
        Reader(),
        quant_format=ort.QuantFormat.QDQ,
        per_channel=True,
        activation_type=ort.QuantType.QUInt8,
        weight_type=ort.QuantType.QInt8,
        # The preprocessing and the float logits at the end stay float.
        nodes_to_exclude=["pre_float", "pre_nchw", "pre_rgb", "pre_Sub", "pre_Mul", "logits", "with_background"],
        extra_options={"CalibMovingAverage": False},
    )
    return out / "quantised.onnx"


RULES: dict[str, Callable[[Path, list[Any], Path], Path]] = {"nncf": nncf, "qdq": qdq}
