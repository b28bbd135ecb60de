"""Class maps from low-resolution logits: our kernel against dense upsampling.

    python benchmarks/masks.py [--json FILE|-]

Random smooth logits; all methods run interleaved on one core; milliseconds are medians. `differs`: pixels of the class
map that differ from a dense float32 upsample + argmax in torch; `differs_without_tie`: those that are no float tie.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
import openvino as ov
import torch
from openvino import opset13 as ops

from edgeseg import mask
from edgeseg.cli.common import emit
from edgeseg.machine import fingerprint

CASES = [(2, 128, 128, 512, 512), (8, 56, 96, 224, 384), (11, 90, 120, 360, 480), (19, 128, 128, 512, 512),
         (19, 90, 160, 720, 1280), (150, 64, 64, 512, 512)]  # fmt: skip
TIE = 1e-5  # of the largest logit


def smooth_logits(classes: int, h: int, w: int, seed: int) -> Any:
    """Regions of a few cells, as networks give: coarse noise, upsampled, with a little fine noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(classes, max(2, h // 8), max(2, w // 8))).astype(np.float32) * 3
    planes = [cv2.resize(plane, (w, h), interpolation=cv2.INTER_CUBIC) for plane in coarse]
    return np.stack(planes) + rng.normal(size=(classes, h, w)).astype(np.float32) * 0.1


def in_graph(classes: int, h: int, w: int, height: int, width: int) -> Callable[[Any], Any]:
    """Upsample + argmax as an OpenVINO graph on one core, in float32."""
    entry = ops.parameter([1, classes, h, w], np.float32)
    sizes = ops.constant(np.array([height, width]))
    axes = ops.constant(np.array([2, 3]))
    full = ops.interpolate(entry, sizes, "linear_onnx", "sizes", axes=axes, coordinate_transformation_mode="half_pixel")
    best = ops.convert(ops.topk(full, ops.constant(1), 1, "max", "none").output(1), "u8")
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = ov.Core().compile_model(ov.Model([best], [entry]), "CPU", config)
    return lambda logits: compiled(logits[None])[0][0, 0]


def in_torch(logits: Any, height: int, width: int) -> Any:
    full = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], (height, width), mode="bilinear")
    return full.argmax(1)[0].numpy()


def real_differences(logits: Any, classmap: Any, height: int, width: int) -> tuple[int, int]:
    """(pixels that differ from torch, those among them where the two logits are no float tie)."""
    full = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], (height, width), mode="bilinear")[0].numpy()
    best = full.max(0)
    chosen = np.take_along_axis(full, classmap[None].astype(np.int64), 0)[0]
    return int((full.argmax(0) != classmap).sum()), int((best - chosen > TIE * np.abs(logits).max()).sum())


def measure(case: tuple[int, int, int, int, int], rounds: int) -> dict[str, Any]:
    classes, h, w, height, width = case
    logits = smooth_logits(classes, h, w, 0)
    graph = in_graph(*case)
    methods: dict[str, Callable[[], Any]] = {
        "kernel": lambda: mask.class_map(logits, height, width, "half_pixel"),
        "numpy": lambda: mask.sparse(logits, height, width, "half_pixel"),
        "torch dense": lambda: in_torch(logits, height, width),
        "openvino dense": lambda: graph(logits),
    }
    milliseconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            begin = time.perf_counter()
            method()
            milliseconds[name].append(1e3 * (time.perf_counter() - begin))
    differ = [real_differences(x, mask.class_map(x, height, width, "half_pixel"), height, width)
              for x in (smooth_logits(classes, h, w, seed) for seed in range(4))]  # fmt: skip
    return {
        "case": f"{classes} classes {w}x{h} -> {width}x{height}",
        "ms": {name: round(statistics.median(row), 3) for name, row in milliseconds.items()},
        "pixels": 4 * height * width,
        "differs": sum(d for d, _ in differ),
        "differs_without_tie": sum(d for _, d in differ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="FILE or - for standard output")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(case, options.rounds) for case in CASES]
    for row in rows:
        print(row, file=sys.stderr)
    document = {"kind": "mask benchmark", "machine": asdict(fingerprint()), "cases": rows}
    emit(document, options.json)


if __name__ == "__main__":
    main()
