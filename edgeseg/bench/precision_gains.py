"""What bfloat16 and INT8 gain on this CPU, measured: convolutions in OpenVINO, interleaved with the same in float32."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from edgeseg import cpus
from edgeseg.precision import Precision

CHANNELS, SIZE, ROUNDS = 64, 56, 15


def precision_gains() -> dict[Precision, float]:
    """How many times as fast as fp32 each precision is that this CPU computes in; ImportError without OpenVINO."""
    precisions = [Precision.FP32, *([Precision.BF16] if cpus.has_bf16() else []), Precision.INT8]
    runs = {precision: _request(precision) for precision in precisions}
    seconds: dict[Precision, list[float]] = {precision: [] for precision in precisions}
    for _ in range(ROUNDS):
        for precision, run in runs.items():
            begin = time.perf_counter()
            run.infer()
            seconds[precision].append(time.perf_counter() - begin)
    base = min(seconds.pop(Precision.FP32))  # the fastest run: other programs only ever make one slower
    return {precision: base / min(row) for precision, row in seconds.items()}


def _request(precision: Precision) -> Any:
    """Four convolutions of 3x3, with random weights."""
    import openvino as ov
    from openvino import opset13 as ops

    random = np.random.default_rng(0)
    entry = ops.parameter([1, CHANNELS, SIZE, SIZE], np.float32)
    x = entry
    for _ in range(4):
        weights = ops.constant(random.normal(0, 0.04, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32))
        if precision.is_int8:
            x = ops.fake_quantize(x, *(ops.constant(np.float32(v)) for v in (0, 4, 0, 4)), 256)
            weights = ops.fake_quantize(weights, *(ops.constant(np.float32(v)) for v in (-0.1, 0.1, -0.1, 0.1)), 255)
        x = ops.relu(ops.convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
    model = ov.Model([x], [entry])
    hint = "bf16" if precision is Precision.BF16 else "f32"
    properties = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    request = ov.Core().compile_model(model, "CPU", properties).create_infer_request()
    request.get_tensor(entry.output(0)).data[:] = random.random((1, CHANNELS, SIZE, SIZE), np.float32)
    request.infer()
    return request
