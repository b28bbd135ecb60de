"""Interleaved measurement: each bundle with its own frames and figures, in an order that favors none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgeseg.bench import interleaved
from edgeseg.bench.interleaved import interleaved as measure_interleaved
from edgeseg.bench.measure import timed_loop
from edgeseg.images import Image
from edgeseg.runtime import open_segmenter
from edgeseg.segmenter import Segmenter


def test_every_bundle_has_its_own_figures(
    bundle_of: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = [bundle_of("openvino-cpu", "fp32"), bundle_of("onnxruntime-cpu", "fp32")]
    opened: list[tuple[Path, str]] = []

    def noted_open(path: Path, mode: str, **options: Any) -> Segmenter:
        opened.append((path, mode))
        return open_segmenter(path, mode, **options)

    observed: list[tuple[int, ...]] = []

    def noted_loop(segmenter: Segmenter, frames: list[Image], *words: Any, **more: Any) -> Iterator[float]:
        observed.append(frames[0].shape)
        return timed_loop(segmenter, frames, *words, **more)

    monkeypatch.setattr(interleaved, "open_segmenter", noted_open)
    monkeypatch.setattr(interleaved, "timed_loop", noted_loop)
    progress: list[tuple[int, int]] = []
    frames = [tiny.frames(2, 0, 128, 192), tiny.frames(2, 0, 64, 96)]
    one, other = measure_interleaved(bundles, frames, 0.1, 2, lambda i, n: progress.append((i, n)), threads=1)
    first, second = bundles
    assert [path for path, mode in opened if mode == "latency"] == [first, second, second, first]
    assert [path for path, mode in opened if mode == "throughput"] == [first, second, second, first]
    assert progress == [(i + 1, 4) for i in range(4)]
    large, small = (128, 192, 3), (64, 96, 3)
    assert observed == [large, large, small, small, small, small, large, large], (
        "warm-up and measurement, its own frames"
    )
    for result in (one, other):
        assert 0 < result.latency_ms.p50 <= result.latency_ms.p90 <= result.latency_ms.p99
        assert result.fps > 0 and len(result.rounds_p50_ms) == 2
