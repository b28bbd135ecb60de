"""Scheme: INT8 as one kind of runtime reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from edgeseg.recipe import PTQ

Array = NDArray[Any]


class Quantize(Protocol):
    def __call__(
        self, graph: Path, frames: list[Array], out: Path, excluded: frozenset[str], ptq: PTQ, *, preset: str = ...
    ) -> Path:
        """Quantize a deploy graph (an ONNX file); returns the file written into the folder `out`.

        `frames`: calibration frames, [1, H, W, 3] uint8 BGR each. `excluded`: names of nodes that stay float. `ptq`:
        its `ranges` is one of the scheme's. `preset`: the target's preset for NNCF, "" elsewhere.
        """


@dataclass(frozen=True)
class Scheme:
    """`title`: for messages. `ranges`: the estimators of activation ranges that it offers, its default first.

    `symmetric`: activations have no zero point. `safe_scales`: its weights are rounded so that CPUs without VNNI do not
    saturate (saturation.py). `operators`: the only ones it quantizes, () = all. `rounds_output`: the
    output of a layer is rounded even if only the logits follow. `min_weight_scale`: the smallest scale of a channel's
    weights as a share of the largest. `reads_qdq`: the quantized models (with Q/DQ pairs) that it accepts as they are:
    "any", "symmetric" (every zero point 0) or "" (none). `layer_scheme`: a scheme that gives a single layer the same
    kernels in less time, "" = itself.
    """

    title: str
    ranges: tuple[str, ...]
    quantize: Quantize
    symmetric: bool = False
    safe_scales: bool = False
    operators: tuple[str, ...] = ()
    rounds_output: bool = False
    min_weight_scale: float = 0.0
    reads_qdq: str = ""
    layer_scheme: str = ""
