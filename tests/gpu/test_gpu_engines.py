"""Engines that TensorRT builds on this GPU: what they compute, how fast, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg import backends
from edgeseg.bench.measure import bench
from edgeseg.bundle import Bundle
from edgeseg.data.dataset import Dataset
from edgeseg.evaluation.evaluate import evaluate
from edgeseg.mask import agreement
from edgeseg.result import Frame
from edgeseg.runtime import open_segmenter

MODEL = Path(__file__).parents[2] / "models" / "street" / "street.onnx"
AGREES = {"fp32": 0.999, "fp16": 0.995, "int8": 0.98}  # of pixels, with ONNX Runtime on the same files
LOSES = {"fp32": 0.1, "fp16": 0.2, "int8": 0.5}  # points of mIoU against it, at most
OPENED = 20
GROWS_MB = 64.0

pytestmark = pytest.mark.usefixtures("gpu")


@pytest.fixture(scope="module", params=["fp32", "fp16", "int8"])
def bundle(
    request: pytest.FixtureRequest, edgeseg: Any, streets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The street student for any NVIDIA GPU, in each precision."""
    out = tmp_path_factory.mktemp("bundles") / request.param
    calibration = ["--calibration", streets] if request.param == "int8" else []
    edgeseg("compile", MODEL, "--target", "tensorrt-gpu", "--precision", request.param, *calibration, "--out", out)
    return Bundle.load(out)


@pytest.fixture(scope="module")
def frames(streets: Path) -> list[np.ndarray]:
    dataset = Dataset.open(streets, "test")
    return [dataset[i][0] for i in range(len(dataset))]


def test_the_engine_computes_what_the_graph_does(bundle: Bundle, frames: list[np.ndarray], figures: Any) -> None:
    with open_segmenter(bundle) as engine, open_segmenter(bundle, backend=bundle.manifest.proved_by) as proxy:
        shares = [agreement(engine(frame).classmap, proxy(frame).classmap) for frame in frames]
    figures[f"{bundle.precision} agreement"] = [min(shares), sum(shares) / len(shares)]
    assert sum(shares) / len(shares) >= AGREES[bundle.precision]


def test_the_engine_is_as_accurate(bundle: Bundle, streets: Path, figures: Any) -> None:
    dataset = Dataset.open(streets, "test")
    with open_segmenter(bundle) as engine, open_segmenter(bundle, backend=bundle.manifest.proved_by) as proxy:
        found, expected = evaluate(engine, dataset).miou, evaluate(proxy, dataset).miou
    figures[f"{bundle.precision} mIoU"] = {"gpu": found, "proxy": expected}
    assert abs(found - expected) <= LOSES[bundle.precision]


def test_a_frame_is_one_launch_and_layers_have_the_precision(bundle: Bundle, figures: Any) -> None:
    built = backends.get("tensorrt").build(bundle)
    figures[f"{bundle.precision} layers"] = built.layers
    assert built.cuda_graph
    if bundle.precision == "int8":
        assert any("int8" in kind.lower() for kind in built.layers)


def test_a_queue_keeps_order_and_values(bundle: Bundle, frames: list[np.ndarray]) -> None:
    with open_segmenter(bundle, "latency") as one, open_segmenter(bundle, "throughput") as many:
        expected = [one(frame).classmap for frame in frames]
        results = list(many.stream(Frame(image, i, 0.0) for i, image in enumerate(frames)))
    assert [result.frame.index for result in results] == list(range(len(frames)))
    for result, truth in zip(results, expected):
        assert agreement(result.classmap, truth) > 0.9999


def test_engines_are_kept_and_damaged_ones_built_again(bundle: Bundle, tmp_path: Path) -> None:
    backend = backends.get("tensorrt")
    engine = Path(backend.build(bundle, tmp_path / "cache").engine)
    written = engine.stat().st_mtime_ns
    assert Path(backend.build(bundle, tmp_path / "cache").engine).stat().st_mtime_ns == written
    data = engine.read_bytes()
    engine.write_bytes(data[: len(data) // 2])
    assert Path(backend.build(bundle, tmp_path / "cache").engine).stat().st_mtime_ns > written
    assert engine.stat().st_size > len(data) // 2


def test_opening_and_closing_leaves_no_memory_behind(
    bundle: Bundle, frames: list[np.ndarray], gpu_memory_mb: Callable[[], float], figures: Any
) -> None:
    def use() -> float:
        with open_segmenter(bundle) as engine:
            engine(frames[0])
        return gpu_memory_mb()

    use()
    before = use()
    for _ in range(OPENED):
        after = use()
    figures[f"{bundle.precision} MB"] = {"before": before, "after": after}
    assert after - before <= GROWS_MB


def test_speed_is_measured(bundle: Bundle, frames: list[np.ndarray], figures: Any) -> None:
    """No limit: a figure beside pure inference of the same engine, in turns."""
    result = bench(bundle.path, frames, seconds=3)
    figures[f"{bundle.precision} speed"] = asdict(result)
    assert result.fps > 0 and result.pure_fps > 0
