"""Latency, throughput and where the time goes: the path that ships, beside pure inference of the same engine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.data.images import Image
from edgeseg.segmenter import Engine, Frame, Segmenter

ROUNDS = 5  # latency, throughput and pure inference take turns, so that a slow minute hits all of them


def bench(
    bundle: Path,
    frames: list[Image],
    seconds: float = 10.0,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Bench a bundle for about `seconds`.

    `latency_ms`: one frame at a time, resize + infer + mask. `fps`: several in flight, the same work. `pure_fps` and
    `pure_latency_ms`: the engine alone. Each is a median over interleaved rounds; latencies pool all rounds.
    """
    share = seconds / (4 * ROUNDS)
    whole: list[float] = []
    pure: list[float] = []
    stages: dict[str, list[float]] = {}
    fps: list[float] = []
    pure_fps: list[float] = []
    with (
        Segmenter.open(bundle, "latency", **options) as single,
        Segmenter.open(bundle, "throughput", **options) as many,
    ):
        for image in islice(cycle(frames), 10):
            single(image)
        list(many.stream(_loop(frames, 0.3)))
        for turn in range(ROUNDS):
            for frame in _loop(frames, share):
                times = single(frame.image).times
                whole.append(sum(times.values()))
                for stage, value in times.items():
                    stages.setdefault(stage, []).append(value)
            pure += _pure_latency(single.engine, share)
            fps.append(_rate(many.stream(_loop(frames, share))))
            pure_fps.append(_rate(_pure_stream(many.engine, share)))
            if progress:
                progress(turn + 1, ROUNDS)
    return {
        "latency_ms": percentiles(whole),
        "fps": float(np.median(fps)),
        "pure_latency_ms": percentiles(pure),
        "pure_fps": float(np.median(pure_fps)),
        "stages_ms": {name: percentiles(values) for name, values in stages.items()},
        "samples": len(whole),
        "rounds_fps": fps,
    }


def percentiles(seconds: Iterable[float]) -> dict[str, float]:
    """{p50, p90, p99} in milliseconds."""
    values = np.percentile(list(seconds), (50, 90, 99)) * 1e3
    return {name: round(float(value), 3) for name, value in zip(("p50", "p90", "p99"), values)}


def fingerprint() -> dict[str, Any]:
    """What a figure depends on besides the bundle: machine, system, versions."""
    versions = {}
    for package in ("edgeseg", "openvino", "onnxruntime", "nncf", "numpy", "opencv-python-headless"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def timed_loop(segmenter: Segmenter, frames: list[Image], seconds: float) -> Iterator[float]:
    """One frame at a time for `seconds`: the seconds each took, resize + infer + mask."""
    for frame in _loop(frames, seconds):
        yield sum(segmenter(frame.image).times.values())


def _loop(frames: list[Image], seconds: float) -> Iterator[Frame]:
    end = time.perf_counter() + seconds
    for i, image in enumerate(cycle(frames)):
        yield Frame(image, i)
        if time.perf_counter() > end:
            return


def _pure_latency(engine: Engine, seconds: float) -> list[float]:
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        begin = time.perf_counter()
        engine.start(0)
        engine.wait(0)
        taken.append(time.perf_counter() - begin)
    return taken


def _pure_stream(engine: Engine, seconds: float) -> Iterator[None]:
    end = time.perf_counter() + seconds
    for slot in range(engine.slots):
        engine.start(slot)
    slot = 0
    while time.perf_counter() < end:
        engine.wait(slot)
        yield
        engine.start(slot)
        slot = (slot + 1) % engine.slots
    for left in range(engine.slots):
        engine.wait((slot + left) % engine.slots)
        yield


def _rate(items: Iterable[Any]) -> float:
    begin = time.perf_counter()
    count = sum(1 for _ in items)
    return count / (time.perf_counter() - begin)


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
