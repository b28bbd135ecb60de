"""bench: every figure is there, and they are consistent."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny

from edgeseg.bench.measure import ROUNDS, STREAMS, advice, bench, sustained
from edgeseg.bench.startup import cold_start
from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.machine import fingerprint
from edgeseg.results.bench import BenchResult
from edgeseg.timing import Percentiles


@pytest.fixture(scope="module", params=["openvino-cpu", "onnxruntime-cpu"])
def figures(request: pytest.FixtureRequest, bundle_of: Callable[[str, str], Path]) -> BenchResult:
    """One short measurement per backend."""
    progress: list[tuple[int, int]] = []
    result = bench(
        bundle_of(request.param, "fp32"),
        tiny.frames(3, 0, 180, 320),
        1.0,
        lambda done, total: progress.append((done, total)),
        threads=1,
    )
    assert progress == [(i + 1, ROUNDS) for i in range(ROUNDS)]
    return result


def test_a_bench_result_survives_json(figures: BenchResult) -> None:
    plain = json.loads(json.dumps(figures.to_dict()))
    assert (plain["kind"], plain["schema"]) == ("bench", 1)
    assert BenchResult.from_dict(plain) == figures
    with pytest.raises(OptionError, match=r"x.json has schema 2, from a newer edgeseg"):
        BenchResult.from_dict({**plain, "schema": 2}, "x.json")
    with pytest.raises(FileError, match=r"not a complete bench result: Expected `float`, got `str` - at `\$.fps`"):
        BenchResult.from_dict({**plain, "fps": "fast"})
    with pytest.raises(FileError, match=r"is of kind 'eval'.\nExpected a result of kind 'bench'"):
        BenchResult.from_dict({**plain, "kind": "eval"})


def test_a_bench_result_has_every_figure(figures: BenchResult) -> None:
    rates = {"latency_ms", "multi_stream_ms", "fps", "pure_latency_ms", "pure_fps"}
    assert set(figures.stages_ms) == {"resize", "infer", "mask"}
    assert set(figures.spread) == rates
    assert set(figures.unstable) == {name for name, value in figures.spread.items() if value > 0.05}
    assert sum(figures.histogram.counts) == figures.samples
    assert figures.histogram.from_ms <= figures.latency_ms.p50 <= figures.histogram.to_ms
    assert not figures.mlperf_length


def test_percentiles_are_in_order(figures: BenchResult) -> None:
    for row in (figures.latency_ms, figures.pure_latency_ms, *figures.stages_ms.values()):
        assert 0 < row.p50 <= row.p90 <= row.p99


def test_the_whole_is_not_faster_than_its_parts(figures: BenchResult) -> None:
    assert figures.latency_ms.p50 >= max(row.p50 for row in figures.stages_ms.values())
    assert figures.samples >= ROUNDS


def test_fps_is_the_median_of_the_rounds(figures: BenchResult) -> None:
    assert len(figures.rounds_fps) == ROUNDS
    assert figures.fps == sorted(figures.rounds_fps)[ROUNDS // 2]
    assert figures.fps > 0 and figures.pure_fps > 0
    # One at a time, frames per second and latency are two words for one thing; several in flight do not make it worse
    # than this by an order.
    assert figures.fps > 100 / figures.latency_ms.p50


def test_percentiles_of_a_known_set() -> None:
    assert Percentiles.of(i / 1000 for i in range(101)) == Percentiles(50.0, 90.0, 99.0)
    assert Percentiles.of([0.004]) == Percentiles(4.0, 4.0, 4.0)


def test_the_fingerprint_names_what_figures_depend_on(tmp_path: Path) -> None:
    result = fingerprint()
    assert result.cores >= 1 and result.cpu and result.system
    assert result.versions["numpy"] == np.__version__
    assert {"edgeseg", "openvino"} <= set(result.versions)
    assert result == fingerprint()
    # Another power mode is another machine.
    for mode in ("pmode:0000", "pmode:0002"):
        path = tmp_path / mode / "var/lib/nvpmodel/status"
        path.parent.mkdir(parents=True)
        path.write_text(mode + "\n")
    ids = {fingerprint(tmp_path / mode).id for mode in ("pmode:0000", "pmode:0002")}
    assert len(ids) == 2
    assert fingerprint(tmp_path / "pmode:0002").power_mode == "pmode:0002"


def test_frames_of_several_sizes_are_measured(bundle: Path) -> None:
    """A frame of another size among them is measured like the rest."""
    sizes = itertools.cycle([(64, 96), (120, 200)])
    frames = [tiny.frames(1, i, *next(sizes))[0] for i in range(2)]
    assert bench(bundle, frames, 0.2, threads=1).samples >= ROUNDS


def test_the_number_of_samples_is_a_minimum(bundle: Path) -> None:
    assert bench(bundle, tiny.frames(2), 0.1, samples=103, threads=1).samples >= 103


def test_several_streams_wait_for_the_last_of_them(figures: BenchResult) -> None:
    assert figures.streams == STREAMS
    assert figures.multi_stream_ms.p50 > figures.pure_latency_ms.p50


def test_full_load_minute_by_minute(bundle: Path) -> None:
    progress: list[tuple[int, int]] = []
    result = sustained(bundle, tiny.frames(2), 3, lambda *turn: progress.append(turn), minute=0.1, threads=1)
    assert len(result.minutes_fps) == 3 and progress == [(1, 3), (2, 3), (3, 3)]
    assert result.last_over_first == pytest.approx(result.minutes_fps[2] / result.minutes_fps[0], abs=1e-3)


def test_cold_start_is_a_new_process(bundle: Path, tmp_path: Path) -> None:
    result = cold_start(bundle, runs=2)
    assert 0.05 < result.first_mask_s < 60 and len(result.runs_s) == 2
    assert 20 < result.peak_memory_mb < 4000
    with pytest.raises(EdgesegError, match=r"A new process cannot run .*not a folder"):
        cold_start(tmp_path / "none")


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"resize": 1.0, "infer": 5.0, "mask": 1.0}, ""),
        ({"read": 4.0, "infer": 2.0, "mask": 0.5, "age": 99.0}, r"takes 69% of a frame's time, most of it for read"),
        ({"infer": 1.0, "sink": 2.0}, r"most of it for sink \(2.00 ms\); write to fewer"),
        ({}, ""),
    ],
)
def test_advice_where_the_host_is_slower_than_the_network(stages: dict[str, float], message: str) -> None:
    result = advice({name: Percentiles(value, value, value) for name, value in stages.items()})
    assert re.search(message, result) and bool(result) == bool(message)
