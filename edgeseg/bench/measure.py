"""Latency, throughput and where the time goes: the path that ships, beside pure inference of the same engine.

Modes after MLPerf Inference: single stream (one frame at a time, p90), multi stream (several cameras' frames at once,
p99 until all are done), offline (as many as possible, frames a second).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.bench.sensors import Sensors, Watch
from edgeseg.images import Image
from edgeseg.result import Frame
from edgeseg.results.bench import BenchResult, Histogram, Sustained
from edgeseg.runtime import open_segmenter
from edgeseg.segmenter import Engine, Segmenter
from edgeseg.timing import Percentiles

ROUNDS = 5  # of interleaved measurement, so that a slow minute hits all modes
STREAMS = 4
STABLE = 0.05  # rounds that differ by more than this share of their median are not a figure to compare
MLPERF = (1024, 60.0)  # samples and seconds that MLPerf asks of a single-stream result
Progress = Callable[[int, int], None]


def bench(
    bundle: Path,
    frames: list[Image],
    seconds: float = 10.0,
    progress: Progress | None = None,
    samples: int = 0,
    seed: int = 0,
    **options: Any,
) -> BenchResult:
    """Bench a bundle for about `seconds`, longer until single stream has `samples` frames.

    `options` go to open_segmenter.
    """
    frames = random.Random(seed).sample(frames, len(frames))
    share, least = seconds / (5 * ROUNDS), -(-samples // ROUNDS)
    single: list[list[float]] = []
    multi: list[list[float]] = []
    pure: list[list[float]] = []
    fps: list[float] = []
    pure_fps: list[float] = []
    stages: dict[str, list[float]] = {}
    begin = time.monotonic()
    with (
        Watch(Sensors()) as watch,
        open_segmenter(bundle, "latency", **options) as one,
        open_segmenter(bundle, "throughput", **options) as many,
    ):
        for image in islice(cycle(frames), 10):
            one(image)
        list(many.stream(_loop(frames, 0.3)))
        for number in range(ROUNDS):
            single.append(list(timed_loop(one, frames, share, stages, least)))
            multi.append(list(_groups(many, frames, share)))
            pure.append(_pure_latency(one.engine, share))
            fps.append(offline_fps(many, frames, share))
            pure_fps.append(_rate(_pure_stream(many.engine, share)))
            if progress:
                progress(number + 1, ROUNDS)
    spread = {
        "latency_ms": _spread([_quantile(row, 90) for row in single]),
        "multi_stream_ms": _spread([_quantile(row, 99) for row in multi]),
        "fps": _spread(fps),
        "pure_latency_ms": _spread([_quantile(row, 90) for row in pure]),
        "pure_fps": _spread(pure_fps),
    }
    count = sum(map(len, single))
    return BenchResult(
        latency_ms=Percentiles.of(_flat(single)),
        multi_stream_ms=Percentiles.of(_flat(multi)),
        streams=STREAMS,
        fps=float(np.median(fps)),
        pure_latency_ms=Percentiles.of(_flat(pure)),
        pure_fps=float(np.median(pure_fps)),
        stages_ms={name: Percentiles.of(values) for name, values in stages.items()},
        histogram=_histogram(_flat(single)),
        samples=count,
        seconds=round(time.monotonic() - begin, 1),
        mlperf_length=count >= MLPERF[0] and seconds >= MLPERF[1],
        rounds_fps=tuple(fps),
        spread={name: round(value, 4) for name, value in spread.items()},
        unstable=tuple(name for name, value in spread.items() if value > STABLE),
        device=watch.summary(watch_frames(count, multi, fps, pure, pure_fps, share)),
    )


def watch_frames(
    single: int,
    multi: list[list[float]],
    fps: list[float],
    pure: list[list[float]],
    pure_fps: list[float],
    share: float,
) -> int:
    """How many inferences a bench ran, for the energy of one."""
    return single + STREAMS * sum(map(len, multi)) + sum(map(len, pure)) + round(share * (sum(fps) + sum(pure_fps)))


def sustained(
    bundle: Path,
    frames: list[Image],
    minutes: int,
    progress: Progress | None = None,
    minute: float = 60.0,
    **options: Any,
) -> Sustained:
    """Offline throughput minute by minute: does the device keep its speed when it is hot?"""
    fps: list[float] = []
    with Watch(Sensors()) as watch, open_segmenter(bundle, "throughput", **options) as segmenter:
        list(segmenter.stream(_loop(frames, 0.3)))
        for number in range(minutes):
            fps.append(offline_fps(segmenter, frames, minute))
            if progress:
                progress(number + 1, minutes)
    return Sustained(
        minutes_fps=tuple(round(value, 2) for value in fps),
        last_over_first=round(fps[-1] / fps[0], 4),
        device=watch.summary(round(minute * sum(fps))),
    )


def advice(stages_ms: Mapping[str, Percentiles]) -> str:
    """What to do where a frame spends more time around the network than in it; "" where it does not.

    `stages_ms`: percentiles by stage, of bench or of `edgeseg run`.
    """
    medians = {name: row.p50 for name, row in stages_ms.items() if name != "age"}
    infer = medians.pop("infer", 0.0)
    total = infer + sum(medians.values())
    if not total or infer >= total / 2:
        return ""
    slowest = max(medians, key=lambda name: medians[name])
    hints = {
        "read": "decode fewer pixels (a smaller stream, ?size=) or on the platform's decoder",
        "resize": "let the camera send the size the network takes",
        "mask": "take class maps at the head's size, or build the C kernel (see edgeseg doctor)",
        "overlay": "draw at a smaller size, or only on the sinks that are looked at",
        "sink": "write to fewer or cheaper sinks (jsonl instead of video)",
    }
    return (
        f"The host takes {1 - infer / total:.0%} of a frame's time, most of it for {slowest} "
        f"({medians[slowest]:.2f} ms); {hints.get(slowest, 'a smaller network would gain little')}."
    )


def timed_loop(
    segmenter: Segmenter,
    frames: list[Image],
    seconds: float,
    stages: dict[str, list[float]] | None = None,
    least: int = 0,
) -> Iterator[float]:
    """One frame at a time for `seconds` and `least` frames: the seconds each took, resize + infer + mask.

    `stages` collects the seconds of each stage.
    """
    for frame in _loop(frames, seconds, least):
        times = segmenter(frame.image).times
        for stage, value in times.items() if stages is not None else ():
            stages.setdefault(stage, []).append(value)  # type: ignore[union-attr]
        yield sum(times.values())


def offline_fps(segmenter: Segmenter, frames: list[Image], seconds: float) -> float:
    """Frames a second with several in flight."""
    return _rate(segmenter.stream(_loop(frames, seconds)))


def _groups(segmenter: Segmenter, frames: list[Image], seconds: float) -> Iterator[float]:
    """STREAMS frames at once: the seconds until the last of them is done."""
    images = cycle(frames)
    end = time.perf_counter() + seconds
    while True:
        group = [Frame(image, i) for i, image in enumerate(islice(images, STREAMS))]
        begin = time.perf_counter()
        for _ in segmenter.stream(group):
            pass
        now = time.perf_counter()
        yield now - begin
        if now > end:
            return


def _loop(frames: list[Image], seconds: float, least: int = 0) -> Iterator[Frame]:
    end = time.perf_counter() + seconds
    for i, image in enumerate(cycle(frames)):
        yield Frame(image, i)
        if time.perf_counter() > end and i + 1 >= least:
            return


def _pure_latency(engine: Engine, seconds: float) -> list[float]:
    latencies: list[float] = []
    end = time.perf_counter() + seconds
    while not latencies or time.perf_counter() < end:
        begin = time.perf_counter()
        engine.start(0)
        engine.wait(0)
        latencies.append(time.perf_counter() - begin)
    return latencies


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
    for i in range(engine.slots):
        engine.wait((slot + i) % engine.slots)
        yield


def _rate(items: Iterable[Any]) -> float:
    begin = time.perf_counter()
    count = sum(1 for _ in items)
    return count / (time.perf_counter() - begin)


def _spread(values: list[float]) -> float:
    return float((max(values) - min(values)) / np.median(values))


def _quantile(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent))


def _flat(rounds: list[list[float]]) -> list[float]:
    return [value for row in rounds for value in row]


def _histogram(seconds: list[float], bins: int = 40) -> Histogram:
    """Frames by latency in equal steps from the fastest to p99.5; the slower ones are in the last bin."""
    values = np.array(seconds) * 1e3
    edges = np.linspace(values.min(), max(np.percentile(values, 99.5), values.min() + 1e-3), bins + 1)
    counts, _ = np.histogram(np.minimum(values, edges[-1]), edges)
    return Histogram(round(float(edges[0]), 4), round(float(edges[-1]), 4), tuple(counts.tolist()))
