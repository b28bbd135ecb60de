"""ONNX Runtime on the float network as it came: the network alone, one inference at a time on all cores."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np


def measure(model: Path, seconds: float) -> dict[str, float]:
    """{fps, latency_p50_ms}; {} where ONNX Runtime is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return {}
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    inputs = {entry.name: np.zeros(entry.shape, np.float32)}
    for _ in range(5):
        session.run(None, inputs)
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        session.run(None, inputs)
        latencies.append(time.perf_counter() - begin)
    return {"fps": len(latencies) / sum(latencies), "latency_p50_ms": 1000 * float(np.median(latencies))}
