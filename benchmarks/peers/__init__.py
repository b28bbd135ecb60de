"""What others do with the same network and frames, one file a peer; each is left out where it is not installed.

A Peer takes frames and yields class maps at the frame's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeseg.images import Image
from edgeseg.spec import Spec

Peer = Callable[[list[Image]], Iterator[Image]]


def exported_int8(model: Path, spec: Spec, frames: list[Image], out: Path) -> Path:
    """The network as exported (float input, its own upsampling), quantized by NNCF as a user would."""
    import logging

    import nncf
    import openvino as ov

    nncf.set_log_level(logging.ERROR)
    data = nncf.Dataset([normalized(frame, spec) for frame in frames])
    ov.save_model(nncf.quantize(ov.Core().read_model(model), data, preset=nncf.QuantizationPreset.MIXED), out)
    return out


def normalized(frame: Image, spec: Spec) -> Any:
    """[1, 3, H, W] float32, as textbooks do it."""
    small = cv2.resize(frame, (spec.width, spec.height))[..., ::-1].astype(np.float32) / 255
    return ((small - np.array(spec.mean)) / np.array(spec.std)).transpose(2, 0, 1)[None].astype(np.float32)


def pure(exported: Path, compute: str = "") -> Callable[[int], int]:
    """The network alone: `count` inferences of the exported model, asynchronous, nothing before or after.

    `compute`: the precision of what is not INT8; empty is OpenVINO's default, bf16 on CPUs that have it.
    """
    import openvino as ov

    config = {"PERFORMANCE_HINT": "THROUGHPUT", **({"INFERENCE_PRECISION_HINT": compute} if compute else {})}
    compiled = ov.Core().compile_model(exported, "CPU", config)
    queue = ov.AsyncInferQueue(compiled)

    def run(count: int) -> int:
        for _ in range(count):
            queue.start_async()
        queue.wait_all()
        return count

    return run
