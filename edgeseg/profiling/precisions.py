"""What the precision of a bundle gains on this machine: its engine beside float ones of the same network, in turns.

What INT8 or bfloat16 is worth differs between CPUs by more than a factor of two, so it is measured, never assumed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

from edgeseg import backends, cpus, onnx_graph
from edgeseg.bundle import Bundle
from edgeseg.precision import Precision
from edgeseg.profiling.measure import open_engine, time_runs, unavailable_reason
from edgeseg.target import Target

WORTH = 1.02  # times as fast as the fastest float precision: less is not worth what it costs in accuracy
SECONDS = 0.5  # of each engine
LEAST_ROUNDS = 3


def speeds(bundle: Bundle, model: Path, output: str = "") -> dict[Precision, float]:
    """How many times as fast as fp32 one inference is, of the bundle and of its target's float precisions that this CPU
    computes in; fp32 is 1. Empty where the target does not run here, and for a `model` that came quantized.
    """
    target = Target.load(bundle.target)
    if unavailable_reason(target):
        return {}
    loaded = onnx_graph.load(model)
    if onnx_graph.is_quantized(loaded):
        return {}
    graph = onnx_graph.deploy_graph(loaded, bundle.spec, output).model
    floats = [Precision.FP32, *([Precision.BF16] if cpus.has_bf16() and Precision.BF16 in target.precisions else [])]
    with ExitStack() as stack:
        engines = {
            precision: stack.enter_context(open_engine(graph, target, precision, target.quantizer))
            for precision in floats
            if precision is not bundle.precision
        }
        own = stack.enter_context(closing(backends.get(target.backend).open(bundle, "latency")))
        engines[bundle.precision] = own
        times: dict[Precision, list[float]] = {precision: [] for precision in engines}
        until = time.monotonic() + SECONDS * len(engines)
        while time.monotonic() < until or len(times[bundle.precision]) < LEAST_ROUNDS:
            for precision, engine in engines.items():
                times[precision] += time_runs(engine)
    # The fastest run counts: other programs only ever make one slower, and by how much is chance.
    return {precision: round(min(times[Precision.FP32]) / min(row), 2) for precision, row in times.items()}


def faster_float(speeds: Mapping[Precision, float], precision: Precision) -> Precision | None:
    """The float precision that makes `precision` not worth its loss, being as fast, or nearly; None if none is."""
    others = {p: times for p, times in speeds.items() if not p.is_int8 and p is not precision}
    best = max(others, key=lambda p: others[p], default=None)
    return best if best and speeds[precision] < WORTH * others[best] else None
