"""Interleaved measurement: every round times every bundle, so that a slow minute of the machine hits all of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.bench.measure import ROUNDS, Progress, offline_fps, timed_loop
from edgeseg.images import Image
from edgeseg.results.bench import Speed
from edgeseg.runtime import open_segmenter
from edgeseg.timing import Percentiles

LEAST = 20  # frames of each bundle in each round, however short the time
WARM_UP = 5


def interleaved(
    bundles: Sequence[Path],
    frames: Sequence[list[Image]],
    seconds: float,
    rounds: int = ROUNDS,
    progress: Progress | None = None,
    **options: Any,
) -> list[Speed]:
    """The speed of each bundle on its own `frames`, in the order of `bundles`.

    `seconds` for each over all rounds: half of it one frame at a time, half with several in flight. Every round starts
    with another bundle. Latencies pool all rounds, `fps` is the median over rounds. `options` go to open_segmenter.
    """
    share = seconds / (2 * rounds)
    single: list[list[list[float]]] = [[] for _ in bundles]
    fps: list[list[float]] = [[] for _ in bundles]
    for number in range(rounds):
        for position in range(len(bundles)):
            i = (position + number) % len(bundles)
            with open_segmenter(bundles[i], "latency", **options) as one:
                list(timed_loop(one, frames[i], 0, least=WARM_UP))
                single[i].append(list(timed_loop(one, frames[i], share, least=LEAST)))
            with open_segmenter(bundles[i], "throughput", **options) as many:
                offline_fps(many, frames[i], 0)
                fps[i].append(offline_fps(many, frames[i], share))
            if progress:
                progress(number * len(bundles) + position + 1, rounds * len(bundles))
    return [
        Speed(
            latency_ms=Percentiles.of(latency for row in rows for latency in row),
            fps=float(np.median(rates)),
            rounds_p50_ms=tuple(Percentiles.of(row).p50 for row in rows),
        )
        for rows, rates in zip(single, fps)
    ]


def slowdown(of: Speed, over: Speed) -> float:
    """How many times as long a frame takes with `of` as with `over`, measured together: the median over rounds."""
    pairs = zip(of.rounds_p50_ms, over.rounds_p50_ms)
    return float(statistics.median(own / other for own, other in pairs))
