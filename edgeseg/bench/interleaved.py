"""Bundles beside each other: they take turns, so that a slow minute of the machine hits all of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.bench.measure import ROUNDS, Progress, offline_fps, timed_loop
from edgeseg.images import Image
from edgeseg.runtime import open_segmenter
from edgeseg.timing import percentiles

LEAST = 20  # frames of each bundle in each round, however short the time
WARM_UP = 5


def in_turns(
    bundles: Sequence[Path],
    frames: Sequence[list[Image]],
    seconds: float,
    rounds: int = ROUNDS,
    progress: Progress | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """What each bundle takes for its own `frames`: {latency_ms, fps, rounds_p50_ms}, in the order of `bundles`.

    `seconds` for each over all rounds: half of it one frame at a time (resize + infer + mask), half with several in
    flight. Every round starts with another bundle. Latencies pool all rounds, `fps` is the median over rounds;
    `rounds_p50_ms` is there to compare bundles within a round. `options` go to open_segmenter.
    """
    share = seconds / (2 * rounds)
    single: list[list[list[float]]] = [[] for _ in bundles]
    fps: list[list[float]] = [[] for _ in bundles]
    for turn in range(rounds):
        for place in range(len(bundles)):
            i = (place + turn) % len(bundles)
            with open_segmenter(bundles[i], "latency", **options) as one:
                list(timed_loop(one, frames[i], 0, least=WARM_UP))
                single[i].append(list(timed_loop(one, frames[i], share, least=LEAST)))
            with open_segmenter(bundles[i], "throughput", **options) as many:
                offline_fps(many, frames[i], 0)
                fps[i].append(offline_fps(many, frames[i], share))
            if progress:
                progress(turn * len(bundles) + place + 1, rounds * len(bundles))
    return [
        {
            "latency_ms": percentiles(taken for row in rows for taken in row),
            "fps": float(np.median(rates)),
            "rounds_p50_ms": [percentiles(row)["p50"] for row in rows],
        }
        for rows, rates in zip(single, fps)
    ]


def slower(row: dict[str, Any], than: dict[str, Any]) -> float:
    """How many times as long a frame takes, of two that in_turns measured: the median over rounds."""
    pairs = zip(row["rounds_p50_ms"], than["rounds_p50_ms"])
    return float(statistics.median(own / other for own, other in pairs))
