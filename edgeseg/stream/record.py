"""One result as plain values, for JSON lines and webhooks."""

from __future__ import annotations

import time
from typing import Any

import cv2

from edgeseg.images import Image
from edgeseg.segmenter import Result
from edgeseg.spec import Spec
from edgeseg.stream.sinks import Info


def record(result: Result, info: Info) -> dict[str, Any]:
    """One result as plain values. `time`: Unix seconds of the capture; `shares`: of the frame, per class present."""
    age = time.monotonic() - result.frame.captured
    return {
        "stream": info.name,
        "frame": result.frame.index,
        "time": round(time.time() - age, 3),
        "age_ms": round(age * 1e3, 1),
        "size": [result.frame.image.shape[1], result.frame.image.shape[0]],
        "shares": shares(result.classmap, info.spec),
        "ms": {stage: round(seconds * 1e3, 2) for stage, seconds in result.times.items()},
    }


def shares(classmap: Image, spec: Spec) -> dict[str, float]:
    """{class: share of the [H, W] class map, 0 to 1}, without absent classes."""
    counts = cv2.calcHist([classmap], [0], None, [256], [0, 256]).reshape(-1)  # OpenCV 4 gives a column
    return {name: round(float(counts[i]) / classmap.size, 4) for i, name in enumerate(spec.classes) if counts[i]}
