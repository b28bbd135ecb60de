"""Measuring latency: of a layer, and of two networks against each other, on the backend that is deployed.

A layer is timed inside a small network (layer_graph.py), and that network without the layer is subtracted. The cost of
entering and leaving a network, and of conversions there, is thus not attributed to the layer. Of many runs the fastest
counts: other programs only ever make a run slower.
"""

from __future__ import annotations

import logging
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeseg import backends
from edgeseg.bundle import Bundle, Manifest, seal
from edgeseg.errors import OptionError
from edgeseg.precision import Precision
from edgeseg.profiling.layer import Layer
from edgeseg.profiling.layer_graph import layer_graph
from edgeseg.quantization import schemes
from edgeseg.quantization.quantize import quantize
from edgeseg.recipe import Recipe
from edgeseg.segmenter import Engine
from edgeseg.spec import Spec
from edgeseg.target import Target, split

if TYPE_CHECKING:
    from onnx import ModelProto

RUNS = 6  # of a network in a row
PAIRS = 30  # of such rows, to compare two networks
PATIENCE = 0.4  # seconds without a faster run, after which the timing of a layer ends
MAX_SECONDS = 4.0  # for a layer


@dataclass(frozen=True)
class LatencyComparison:
    """Two networks measured interleaved: median milliseconds of each, and the median of ms / parent_ms pair by pair.

    Nine of ten pairs lie above `low`: if it is over 1, the network is slower than its parent beyond doubt.
    """

    parent_ms: float
    ms: float
    share: float
    low: float


def timing_target(recipe: Recipe) -> tuple[Target, Precision]:
    """Where a recipe's networks are timed: on its first target, in int8 if they are compiled for that."""
    if not recipe.targets.compile:
        raise OptionError("The recipe names no target to measure latency on.", "Name one: [targets] compile = [...].")
    pairs = [split(entry) for entry in recipe.targets.compile]
    target = pairs[0][0]
    precisions = [precision for other, precision in pairs if other.name == target.name]
    return target, Precision.INT8 if Precision.INT8 in precisions else precisions[0]


def unavailable_reason(target: Target) -> str:
    """Why networks cannot be timed on this target here, or ""."""
    if target.build_mode:
        return f"{target.name} builds its engines on the board"
    return backends.missing(target)


def time_layer(layer: Layer, target: Target, precision: Precision) -> float:
    """Milliseconds that `layer` adds to a network."""
    scheme = schemes.get(target.quantizer).layer_scheme or target.quantizer
    graphs = layer_graph(layer), layer_graph(layer, with_layer=False)
    with (
        open_engine(graphs[0], target, precision, scheme) as with_layer,
        open_engine(graphs[1], target, precision, scheme) as without_layer,
    ):
        best = [math.inf, math.inf]
        begin = last_improvement = now = time.perf_counter()
        while now - last_improvement < PATIENCE and now - begin < MAX_SECONDS:
            fastest = [min(time_runs(engine)) for engine in (with_layer, without_layer)]
            now = time.perf_counter()
            if any(new < 0.99 * old for new, old in zip(fastest, best)):
                last_improvement = now
            best = [min(new, old) for new, old in zip(fastest, best)]
    return round(max(0.0, best[0] - best[1]), 5)


def compare(parent: ModelProto, child: ModelProto, target: Target, precision: Precision) -> LatencyComparison:
    """Two deploy graphs measured interleaved, in alternating order."""
    with (
        open_engine(parent, target, precision, target.quantizer) as parent_engine,
        open_engine(child, target, precision, target.quantizer) as child_engine,
    ):
        pairs = []
        for number in range(PAIRS):
            order = (parent_engine, child_engine) if number % 2 else (child_engine, parent_engine)
            medians = {id(engine): statistics.median(time_runs(engine)) for engine in order}
            pairs.append((medians[id(parent_engine)], medians[id(child_engine)]))
    shares = sorted(ms / parent_ms for parent_ms, ms in pairs)
    return LatencyComparison(
        parent_ms=round(statistics.median(parent_ms for parent_ms, _ in pairs), 4),
        ms=round(statistics.median(ms for _, ms in pairs), 4),
        share=round(statistics.median(shares), 4),
        low=round(shares[len(shares) // 10], 4),
    )


def time_runs(engine: Engine) -> list[float]:
    """Milliseconds of some runs, after one that is not counted: another engine's threads may still be spinning."""
    times = []
    for _ in range(RUNS + 1):
        begin = time.perf_counter()
        engine.start(0)
        engine.wait(0)
        times.append(1e3 * (time.perf_counter() - begin))
    return times[1:]


@contextmanager
def open_engine(graph: ModelProto, target: Target, precision: Precision, scheme: str) -> Iterator[Engine]:
    """A deploy graph as the target's engine in latency mode; INT8 is calibrated with noise, which is as fast."""
    backend = backends.get(target.backend)
    shape = [d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim]
    noise = np.random.default_rng(0).integers(0, 256, shape[1:], np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = work / "deploy.onnx"
        source.write_bytes(graph.SerializeToString())
        if precision.is_int8:
            with _without_root_log():
                source = quantize(source, [noise], scheme, work, target.preset if scheme == target.quantizer else "")
        backend.compile(source, work, target, precision)
        spec = Spec(8, 8, ("any", "other"))  # an engine does not use it
        seal(work, Manifest(name="layer", spec=spec, target=target.name, backend=target.backend, precision=precision,
                            upsample="half_pixel", files={}))  # fmt: skip
        engine: Engine = backend.open(Bundle.load(work), "latency")
        try:
            engine.inputs(0)["frame"][:] = noise
            yield engine
        finally:
            engine.close()


@contextmanager
def _without_root_log() -> Iterator[None]:
    """Drop the advice that ONNX Runtime's quantizer logs through the root logger, here hundreds of times."""

    def drop(record: logging.LogRecord) -> bool:
        return False

    root = logging.getLogger()
    root.addFilter(drop)
    try:
        yield
    finally:
        root.removeFilter(drop)
