"""bench: the figures it promises, in an order that can be true."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgeseg.bench.measure import ROUNDS, bench, fingerprint, percentiles

POINTS = ("p50", "p90", "p99")


@pytest.fixture(scope="module", params=["openvino-cpu", "onnxruntime-cpu"])
def figures(request: pytest.FixtureRequest, bundle_of: Callable[[str, str], Path]) -> dict[str, Any]:
    """One short measurement per backend."""
    turns: list[tuple[int, int]] = []
    found = bench(
        bundle_of(request.param, "fp32"),
        tiny.frames(3, 0, 180, 320),
        1.0,
        lambda done, total: turns.append((done, total)),
        threads=1,
    )
    assert turns == [(i + 1, ROUNDS) for i in range(ROUNDS)]
    return found


def test_it_has_every_figure(figures: dict[str, Any]) -> None:
    assert set(figures) == {
        "latency_ms",
        "fps",
        "pure_latency_ms",
        "pure_fps",
        "stages_ms",
        "samples",
        "rounds_fps",
    }
    assert set(figures["stages_ms"]) == {"resize", "infer", "mask"}


def test_percentiles_are_in_order(figures: dict[str, Any]) -> None:
    for row in (figures["latency_ms"], figures["pure_latency_ms"], *figures["stages_ms"].values()):
        assert tuple(row) == POINTS
        assert 0 < row["p50"] <= row["p90"] <= row["p99"]


def test_the_whole_is_not_faster_than_its_parts(figures: dict[str, Any]) -> None:
    assert figures["latency_ms"]["p50"] >= max(row["p50"] for row in figures["stages_ms"].values())
    assert figures["samples"] >= ROUNDS


def test_fps_is_the_median_of_the_rounds(figures: dict[str, Any]) -> None:
    assert len(figures["rounds_fps"]) == ROUNDS
    assert figures["fps"] == sorted(figures["rounds_fps"])[ROUNDS // 2]
    assert figures["fps"] > 0 and figures["pure_fps"] > 0
    # One at a time, frames per second and latency are two words for one thing; several in flight do not make it worse
    # than this by an order.
    assert figures["fps"] > 100 / figures["latency_ms"]["p50"]


def test_percentiles_of_a_known_set() -> None:
    assert percentiles(i / 1000 for i in range(101)) == {"p50": 50.0, "p90": 90.0, "p99": 99.0}
    assert percentiles([0.004]) == {"p50": 4.0, "p90": 4.0, "p99": 4.0}


def test_the_fingerprint_names_what_figures_depend_on() -> None:
    found = fingerprint()
    assert set(found) == {"cpu", "cores", "system", "python", "versions"}
    assert found["cores"] >= 1 and found["cpu"] and found["system"]
    assert found["versions"]["numpy"] == np.__version__
    assert {"edgeseg", "openvino"} <= set(found["versions"])


def test_frames_are_taken_in_turn(bundle: Path) -> None:
    """A frame of another size among them is measured like the rest."""
    sizes = itertools.cycle([(64, 96), (120, 200)])
    frames = [tiny.frames(1, i, *next(sizes))[0] for i in range(2)]
    assert bench(bundle, frames, 0.2, threads=1)["samples"] >= ROUNDS
