"""Ranges of activations: each method against its definition, and in the files of each scheme."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgeseg.bundle import Bundle
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import compile_model
from edgeseg.errors import OptionError
from edgeseg.recipe import PTQ, Recipe
from edgeseg.target import Target

onnx = pytest.importorskip("onnx")

from edgeseg import onnx_graph  # noqa: E402
from edgeseg.quantization import ranges, schemes  # noqa: E402
from edgeseg.quantization.quantize import quantize, resolve_ranges  # noqa: E402
from edgeseg.quantization.rounding import scale_and_zero_point  # noqa: E402
from edgeseg.quantization.tensors import run_graph  # noqa: E402

Run = Callable[..., Any]
TARGETS = {"nncf": "openvino-cpu", "qdq": "onnxruntime-cpu", "symmetric": "jetson-orin", "litert": "tflite-cpu"}


def deployed(model: Path, out: Path) -> Path:
    out.write_bytes(onnx_graph.deploy_graph(onnx_graph.load(model), tiny.SPEC).model.SerializeToString())
    return out


def histogram(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.histogram(x, ranges.BINS)


def normal(seed: int = 0) -> np.ndarray:
    """A million values around 0 and one far away."""
    return np.append(np.random.default_rng(seed).normal(0, 1, 1_000_000), 40.0)


def test_minmax_and_mean_are_those_of_the_float_network(network: Path, tmp_path: Path) -> None:
    model, frames = onnx.load(str(deployed(network, tmp_path / "a.onnx"))), tiny.frames(3)
    logits = np.stack([row[0] for row in run_graph(model, frames)])
    ends = logits.min((1, 2, 3, 4)), logits.max((1, 2, 3, 4))
    assert ranges.estimate_ranges(model, frames, "minmax")["logits"] == pytest.approx((ends[0].min(), ends[1].max()))
    assert ranges.estimate_ranges(model, frames, "mean")["logits"] == pytest.approx((ends[0].mean(), ends[1].mean()))
    assert ends[0].min() < ends[0].mean() - 1e-3


def test_percentile_leaves_out_the_tails() -> None:
    x = normal()
    low, high = ranges.percentile(*histogram(x), False)
    step = np.ptp(x) / ranges.BINS
    assert (low, high) == pytest.approx(tuple(np.quantile(x, [1e-4, 1 - 1e-4])), abs=step)


@pytest.mark.parametrize("symmetric", [False, True])
def test_mse_beats_the_whole_range_and_wider_or_narrower_ones(symmetric: bool) -> None:
    x = normal()

    def error(low: float, high: float) -> float:
        scale, zero = scale_and_zero_point(low, high, symmetric)
        smallest, largest = (-127, 127) if symmetric else (0, 255)
        return float(np.square(x - (np.clip(np.round(x / scale) + zero, smallest, largest) - zero) * scale).mean())

    span = ranges.mse(*histogram(x), symmetric)
    assert error(*span) < 0.8 * error(x.min(), x.max())
    assert error(*span) < min(error(span[0], 0.5 * span[1]), error(span[0], 2 * span[1]))


def test_entropy_clips_outliers_only() -> None:
    """40 is one value in a million; if it were kept, 8 of the 128 levels would hold all others."""
    low, high = ranges.entropy(*histogram(normal()), False)
    assert 3 < high < 12 and low < -3
    uniform = np.random.default_rng(0).uniform(0, 1, 1_000_000)
    assert ranges.entropy(*histogram(uniform), False)[1] > 0.95, "a uniform distribution has no outliers"


@pytest.mark.parametrize("scheme", ["qdq", "symmetric"])
def test_minmax_equals_the_ranges_of_onnx_runtime(network: Path, tmp_path: Path, scheme: str) -> None:
    from onnx import numpy_helper
    from onnxruntime import quantization as ort

    source, frames = deployed(network, tmp_path / "a.onnx"), tiny.frames(8)
    ours = quantize(source, frames, scheme, tmp_path, ptq=PTQ(bias=False))
    remaining = iter(frames)

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            frame = next(remaining, None)
            return None if frame is None else {"frame": frame[None]}

    kind = ort.QuantType.QUInt8 if scheme == "qdq" else ort.QuantType.QInt8
    options = {} if scheme == "qdq" else {"ActivationSymmetric": True}
    ort.quantize_static(
        str(source), str(tmp_path / "theirs.onnx"), Reader(), per_channel=True, activation_type=kind,
        weight_type=ort.QuantType.QInt8, extra_options=options,
    )  # fmt: skip

    def scales(path: Path) -> dict[float, int]:
        """The scale in front of each convolution."""
        model = onnx.load(str(path))
        producers = {n.output[0]: n for n in model.graph.node}
        values = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        return {n.name: float(values[producers[n.input[0]].input[1]]) for n in model.graph.node if n.op_type == "Conv"}

    assert scales(ours) == pytest.approx(scales(tmp_path / "theirs.onnx"), rel=1e-5)


@pytest.mark.parametrize(
    ("scheme", "method"), [(name, method) for name in TARGETS for method in schemes.get(name).ranges]
)
def test_every_method_gives_a_valid_bundle_that_names_it(
    network: Path, labeled: Path, tmp_path: Path, scheme: str, method: str
) -> None:
    bundle = compile_model(
        network, tmp_path / "out", Target.load(TARGETS[scheme]), "int8", spec=tiny.SPEC, frames=tiny.frames(4, seed=1),
        calibration=CalibrationSet.choose(labeled, 10), ptq=PTQ(ranges=method, bias=False),
    )  # fmt: skip
    assert bundle.manifest.ptq == PTQ(method, bias=False)
    assert bundle.manifest.parity is not None
    assert bundle.manifest.parity.agreement > 0.9


@pytest.mark.parametrize("scheme", sorted(TARGETS))
def test_the_method_reaches_the_quantized_file(network: Path, tmp_path: Path, scheme: str) -> None:
    source = deployed(network, tmp_path / "a.onnx")
    preset = "mixed" if scheme == "nncf" else ""
    files = {}
    for method in schemes.get(scheme).ranges:
        (tmp_path / method).mkdir()
        path = quantize(source, tiny.frames(12), scheme, tmp_path / method, preset, ptq=PTQ(method, bias=False))
        files[method] = (path.with_suffix(".bin") if path.suffix == ".xml" else path).read_bytes()
    assert len(set(files.values())) == len(files)


@pytest.mark.parametrize("scheme", sorted(TARGETS))
def test_biases_are_corrected_for_every_scheme(network: Path, tmp_path: Path, scheme: str) -> None:
    source, files = deployed(network, tmp_path / "a.onnx"), set()
    for bias in (False, True):
        path = quantize(
            source, tiny.frames(8), scheme, tmp_path, "mixed" if scheme == "nncf" else "", ptq=PTQ(bias=bias)
        )
        files.add((path.with_suffix(".bin") if path.suffix == ".xml" else path).read_bytes())
    assert len(files) == 2


def test_auto_is_the_first_method_of_each_scheme() -> None:
    assert set(schemes.names()) == {"entropy", "litert", "nncf", "qdq", "symmetric"}
    assert resolve_ranges(PTQ(), "nncf").ranges == "minmax"
    assert resolve_ranges(PTQ(), "qdq").ranges == "minmax"


@pytest.mark.parametrize(
    ("scheme", "method", "message"),
    [
        ("nncf", "entropy", r"INT8 by NNCF \(OpenVINO\) has no ranges 'entropy'.\nIt has: minmax, mean, percentile, m"),
        ("entropy", "mse", "own calibrator has no ranges 'mse'.\nIt has: entropy"),
        ("litert", "histogram", "has no ranges 'histogram'.\nIt has: minmax, mean, percentile, mse, entropy"),
        ("nnfc", "auto", "Unknown quantizer 'nnfc'.\nDid you mean 'nncf'"),
    ],
)
def test_ranges_a_scheme_does_not_have(network: Path, tmp_path: Path, scheme: str, method: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        quantize(network, tiny.frames(2), scheme, tmp_path, ptq=PTQ(method))


def test_the_options(edgeseg: Run, network: Path, labeled: Path, tmp_path: Path) -> None:
    command = ("quantize", network, "-t", "onnxruntime-cpu", "--calibration", labeled, "-o", tmp_path / "o")
    ran = edgeseg(*command, "--ranges", "percentile", "--equalize", "--no-bias")
    assert ran.code == 0, ran.err
    assert "ranges by percentile, channels equalized" in ran.out
    assert Bundle.load(tmp_path / "o").manifest.ptq == PTQ("percentile", bias=False, equalize=True)
    ran = edgeseg(*command, "--ranges", "median")
    assert ran.code == 2 and "has no ranges 'median'" in ran.err
    ran = edgeseg("compile", network, "--equalize", "-o", tmp_path / "p")
    assert ran.code == 2 and "Ranges, biases or equalization were given for fp32" in ran.err


def test_the_keys_of_a_recipe() -> None:
    table = {"name": "r", "data": {"root": ".", "size": [64, 96]}, "quantize": {"ranges": "mse", "equalize": True}}
    found = Recipe.from_dict(table, Path("r.toml")).quantize
    assert (found.ranges, found.bias, found.equalize) == ("mse", True, True)
    with pytest.raises(OptionError, match=r"quantize\.ranges is 'kl'\.\nExpected 'auto' or 'minmax'"):
        Recipe.from_dict({**table, "quantize": {"ranges": "kl"}}, Path("r.toml"))
