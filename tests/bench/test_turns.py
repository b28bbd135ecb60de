"""Bundles that take turns: each with its own frames and figures, in an order that is nobody's advantage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

from edgeseg.bench import turns
from edgeseg.bench.turns import LEAST, in_turns
from edgeseg.segmenter import Segmenter


def test_each_has_its_own_figures(bundle_of: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    bundles = [bundle_of("openvino-cpu", "fp32"), bundle_of("onnxruntime-cpu", "fp32")]
    opened: list[tuple[Path, str]] = []

    class Noted(Segmenter):
        @classmethod
        def open(cls, path: Path, mode: str, **options: object) -> Segmenter:  # type: ignore[override]
            opened.append((path, mode))
            return Segmenter.open(path, mode, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(turns, "Segmenter", Noted)
    told: list[tuple[int, int]] = []
    # The first one gets frames that take it far longer to bring to its size.
    frames = [tiny.frames(2, 0, 1440, 2560), tiny.frames(2, 0, 64, 96)]
    slow, fast = in_turns(bundles, frames, 0.1, 2, lambda i, n: told.append((i, n)), threads=1)
    first, second = bundles
    assert [path for path, mode in opened if mode == "latency"] == [first, second, second, first]
    assert [path for path, mode in opened if mode == "throughput"] == [first, second, second, first]
    assert told == [(i + 1, 4) for i in range(4)]
    for found in (slow, fast):
        assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p90"] <= found["latency_ms"]["p99"]
        assert found["fps"] > 0 and len(found["rounds_p50_ms"]) == 2
    assert slow["latency_ms"]["p50"] > 2 * fast["latency_ms"]["p50"]
    assert LEAST >= 20
