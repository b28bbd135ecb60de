"""As textbooks do it: resize, normalize and argmax in numpy around synchronous inference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeseg.images import Image
from edgeseg.spec import Spec
from peers import Peer, normalized


def naive(exported: Path, spec: Spec) -> Peer:
    import openvino as ov

    compiled = ov.Core().compile_model(exported, "CPU")

    def run(frames: list[Image]) -> Iterator[Image]:
        for frame in frames:
            logits = compiled(normalized(frame, spec))[0]
            small = logits[0].argmax(0).astype(np.uint8)
            yield _nearest(small, frame.shape)

    return run


def _nearest(classmap: Any, shape: Any) -> Image:
    return np.asarray(cv2.resize(classmap, shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
