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
    """Copy the float graph, and store the frames [N, H, W, 3] from which TensorRT's calibrator estimates ranges."""
    if excluded:
        raise OptionError(
            "TensorRT's own calibrator chooses each layer's precision itself; none can be excluded from INT8.",
            "Leave out --entropy: Q/DQ pairs then say which layers are INT8.",
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
