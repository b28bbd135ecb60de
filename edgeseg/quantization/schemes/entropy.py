"""INT8 for TensorRT up to 10, by its own entropy calibrator on the device."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from edgeseg.errors import OptionError
from edgeseg.quantization.scheme import Array, Scheme
from edgeseg.recipe import PTQ


def quantize(
    graph: Path, frames: list[Array], out: Path, excluded: frozenset[str], ptq: PTQ, *, preset: str = ""
) -> Path:
    """The float graph, and beside it the frames [N, H, W, 3] from which TensorRT's calibrator finds ranges itself."""
    if excluded:
        raise OptionError(
            "TensorRT's own calibrator chooses each layer's precision itself; none can be kept in float.",
            "Without --entropy it can: then Q/DQ pairs say what is INT8.",
        )
    np.save(out / "quantized.npy", np.concatenate(frames))
    shutil.copyfile(graph, out / "quantized.onnx")
    return out / "quantized.onnx"


SCHEME = Scheme(
    title="TensorRT's own calibrator",
    ranges=("entropy",),
    quantize=quantize,
    symmetric=True,
    operators=("Conv", "Add"),
)
