"""Autotune: the choice is on the Pareto front of the measurements, whoever measures it, and is explained."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.bundle import Bundle
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.data.dataset import Dataset
from edgeseg.errors import OptionError
from edgeseg.evaluation.evaluate import evaluate
from edgeseg.results.common import Drop
from edgeseg.results.search import AutotuneCandidate, AutotuneResult, pareto_front
from edgeseg.runtime import open_segmenter
from edgeseg.search.autotune import EXPLAINED, autotune, choose, explain, sized
from edgeseg.search.trials import Budget, Trials
from edgeseg.target import Target
from edgeseg.timing import Percentiles

onnx = pytest.importorskip("onnx")

Run = Callable[..., Any]


def dynamic(path: Path) -> Path:
    """The tiny network with a free height and width."""
    net = tiny.Net()
    onnx.save(net.model(net.resize(net.head("image", 8)), shape=(1, 3, "h", "w"), spec=tiny.SPEC), str(path))
    return path


def trials_in(folder: Path, data: Path, budget: Budget | None = None) -> Trials:
    chosen, frames = CalibrationSet.choose(data, 10), Dataset.open(data, "val")
    return Trials(folder, Target.load("onnxruntime-cpu"), chosen, frames, budget or Budget(), lambda text: None, 0.2)


def test_every_candidate_is_measured_and_the_choice_is_on_the_true_front(
    fragile: Path, labeled: Path, tmp_path: Path
) -> None:
    """Accuracies are measured again by the evaluator; then no other candidate beats the choice in both."""
    result = autotune(trials_in(tmp_path / "t", labeled), [(fragile, tiny.SPEC)], 4.0, None, tmp_path / "best")
    names = [row.name for row in result.rows]
    variants = ("equalized", "uncorrected", "mean", "percentile", "mse", "entropy", "equalized-excluding-1")
    assert names == [
        f"fragile-96x64-{kind}" for kind in ("fp32", "fp16", "int8", *(f"int8-{name}" for name in variants))
    ]
    manifests = {name: Bundle.load(tmp_path / "t" / name).manifest for name in names}
    assert manifests["fragile-96x64-int8-mse"].ptq.ranges == "mse"
    assert manifests["fragile-96x64-int8-equalized"].ptq.equalize
    drops = {row.name.removeprefix("fragile-96x64-"): row.drop.value for row in result.rows}
    assert drops["int8"] > 50 and max(drops["int8-equalized"], drops["int8-equalized-excluding-1"]) <= 4
    test = Dataset.open(labeled, "val")
    for row in result.rows:
        with open_segmenter(tmp_path / "t" / row.name) as segmenter:
            assert evaluate(segmenter, test).miou == pytest.approx(row.miou, abs=1e-6)
    chosen = next(row for row in result.rows if row.name == result.chosen)
    assert result.held and chosen.drop.value <= 4.0 and result.chosen in result.front
    assert result.chosen != "fragile-96x64-int8"
    for row in result.rows:
        faster = row.latency_ms.p50 < chosen.latency_ms.p50
        assert not (faster and row.miou >= chosen.miou), (row, chosen)
    assert Bundle.load(tmp_path / "best").precision == chosen.precision
    assert autotune(trials_in(tmp_path / "t", labeled), [(fragile, tiny.SPEC)], 4.0, None, tmp_path / "best") == result


def test_sizes_and_models_are_candidates_where_the_model_allows(labeled: Path, network: Path, tmp_path: Path) -> None:
    free = dynamic(tmp_path / "free.onnx")
    pairs = sized(free, tiny.SPEC, [(64, 96), (32, 48)])
    assert [(spec.height, spec.width) for _, spec in pairs] == [(64, 96), (32, 48)]
    result = autotune(trials_in(tmp_path / "t", labeled), [*pairs, (network, tiny.SPEC)], 20, None, tmp_path / "best")
    assert {tuple(row.size) for row in result.rows} == {(96, 64), (48, 32)}
    assert {row.model for row in result.rows} == {"free.onnx", "tiny.onnx"}
    assert len(result.rows) >= 9
    with pytest.raises(OptionError, match="cannot run at 48x32: its input is fixed at 96x64"):
        sized(network, tiny.SPEC, [(32, 48)])


def test_models_with_the_same_name_are_rejected(fragile: Path, labeled: Path, tmp_path: Path) -> None:
    from edgeseg.search import autotune as module

    other = tmp_path / "other" / "fragile.onnx"
    other.parent.mkdir()
    tiny.network(other, seed=1)
    with pytest.raises(OptionError, match=r"Two models are called fragile"):
        module.autotune(
            trials_in(tmp_path / "t", labeled), [(fragile, tiny.SPEC), (other, tiny.SPEC)], 1, None, tmp_path / "b"
        )


def test_a_model_that_came_quantized_is_a_candidate(labeled: Path, network: Path, tmp_path: Path) -> None:
    """It is compared with the float one, as it is: no other precision, ranges or excluded layers."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        noise = iter(np.random.default_rng(0).normal(0, 1, (8, 1, 3, tiny.HEIGHT, tiny.WIDTH)).astype(np.float32))

        def get_next(self) -> Any:
            image = next(self.noise, None)
            return None if image is None else {"image": image}

    trained = tmp_path / "trained.onnx"
    quantize_static(str(network), str(trained), Reader(), quant_format=QuantFormat.QDQ)
    result = autotune(
        trials_in(tmp_path / "t", labeled), [(network, tiny.SPEC), (trained, tiny.SPEC)], 50, None, tmp_path / "best"
    )
    names = [row.name for row in result.rows if row.model == "trained.onnx"]
    assert names == ["trained-96x64-int8"]
    assert Bundle.load(tmp_path / "t" / "trained-96x64-int8").manifest.calibration is None
    with pytest.raises(OptionError, match=r"trained.onnx came quantized.*\nName the float model first"):
        autotune(trials_in(tmp_path / "t", labeled), [(trained, tiny.SPEC)], 50, None, tmp_path / "best")


def row(
    name: str, p50: float, miou: float, p99: float | None = None, best: float = 1.0, rounds: Sequence[float] = ()
) -> Row:
    drop = 100 * (best - miou)
    return AutotuneCandidate(
        name=name,
        miou=miou,
        drop=Drop(drop, drop - 1, drop + 1),
        counted=drop,
        latency_ms=Percentiles(p50, p50, p50 if p99 is None else p99),
        rounds_p50_ms=tuple(rounds) or (p50,),
        fps=1000 / p50,
        kept=(),
        bytes=1,
        model="a.onnx",
        size=(96, 64),
        precision="int8",
    )


Row = AutotuneCandidate
POINTS = st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 1), st.floats(1, 3)), min_size=1, max_size=12)


@given(POINTS, st.floats(0, 100))
def test_the_choice_is_on_the_front(points: list[tuple[float, float, float]], limit: float) -> None:
    rows = [row(str(i), p50, miou) for i, (p50, miou, _) in enumerate(points)]
    chosen, held = choose(rows, limit, None)
    assert chosen.name in {name for name, _, _ in pareto_front((r.name, r.latency_ms.p50, r.miou) for r in rows)}
    assert held == (chosen.drop.value <= limit) == any(r.drop.value <= limit for r in rows)


@given(POINTS, st.floats(0, 100), st.floats(0.1, 300))
def test_every_faster_one_has_a_reason(points: list[tuple[float, float, float]], limit: float, p99: float) -> None:
    rows = [row(str(i), p50, miou, p50 * tail) for i, (p50, miou, tail) in enumerate(points)]
    chosen, held = choose(rows, limit, p99)
    both = [r for r in rows if r.drop.value <= limit and r.latency_ms.p99 <= p99]
    assert held == bool(both) == (chosen in both)
    if held:
        why = explain(rows, chosen, held, limit, p99)
        lines = [line for line in why if "is faster" in line]
        faster = [r for r in rows if r.latency_ms.p50 < chosen.latency_ms.p50]
        assert len(lines) == min(len(faster), EXPLAINED)
        assert (f"{len(faster) - EXPLAINED} more are faster" in why[-1]) == (len(faster) > EXPLAINED)
        explained = [r for r in faster if any(line.startswith(f"{r.name} is faster") for line in lines)]
        assert max((r.counted for r in explained), default=0) <= min(
            (r.counted for r in faster if r not in explained), default=math.inf
        )
        near = [line for line in lines if "by no more than rounds differ" in line]
        assert all("it loses" in line or "its p99 is" in line or line in near for line in lines)
        assert len(near) == sum(r in both and r.miou < chosen.miou for r in explained)


def test_of_equally_fast_candidates_the_most_accurate_is_chosen() -> None:
    """Round by round: a slow round hits both."""
    first = row("first", 10, 0.80, rounds=(9, 10, 14))
    better = row("better", 10.4, 0.82, rounds=(10, 10.4, 13))
    slow = row("slow", 12, 0.9, rounds=(11, 12, 16))
    assert choose([first, better, slow], 30, None) == (better, True)
    assert "first is faster (10.00 ms), but by no more than rounds differ, and its mIoU is 80.00." in explain(
        [first, better, slow], better, True, 30, None
    )


@pytest.mark.parametrize(
    ("rows", "p99", "expected"),
    [
        ([row("slow", 9, 1.0), row("fast", 3, 0.5)], 5.0, "fast"),  # in time, though it loses too much
        ([row("slow", 9, 1.0), row("slower", 10, 1.0), row("bad", 8, 0.5)], 5.0, "slow"),  # none in time
        ([row("worse", 1, 0.2), row("bad", 2, 0.4)], None, "bad"),  # none accurate
    ],
)
def test_the_best_is_chosen_where_none_holds(rows: list[Row], p99: float | None, expected: str) -> None:
    chosen, held = choose(rows, 0.5, p99)
    assert (chosen.name, held) == (expected, False)
    assert explain(rows, chosen, held, 0.5, p99)[0].startswith("No candidate holds 0.5 points")


def test_the_command_and_its_report(edgeseg: Run, fragile: Path, labeled: Path, tmp_path: Path) -> None:
    words = ("autotune", fragile, "-t", "onnxruntime-cpu", "--calibration", labeled, "--data", labeled)
    words += ("-o", tmp_path / "out", "--seconds", "0.2", "--json", tmp_path / "a.json")
    result = edgeseg(*words, "--max-drop", "4")
    assert result.code == 0, result.err
    found = AutotuneResult.load(tmp_path / "a.json")
    page, text = ((tmp_path / "out" / f"report.{kind}").read_text() for kind in ("html", "md"))
    for shown in (page, text):
        assert found.chosen in shown
        assert all(row.name in shown for row in found.rows)
        assert "t6" in shown  # the excluded layer
    assert "<svg" in page and "class=front" in page
    assert found.why[0] in result.out
    assert Bundle.load(tmp_path / "out" / "best").name == "best"
    # The same again, with a limit that nothing holds: nothing is measured anew, the exit is 1, the best is written.
    result = edgeseg(*words, "--max-drop", "4", "--p99", "0.000001")
    assert result.code == 1, result.err
    again = AutotuneResult.load(tmp_path / "a.json")
    assert again.rows == found.rows and again.held is False
    assert "No candidate holds 4 points and a p99 of 1e-06 ms" in result.out
    assert "limit missed" in result.err
    assert Bundle.load(tmp_path / "out" / "best").manifest.autotune["held"] is False


def test_stopping_early_is_reported(labeled: Path, network: Path, tmp_path: Path) -> None:
    trials = trials_in(tmp_path / "t", labeled, Budget(minutes=1e-6))
    result = autotune(trials, [(network, tiny.SPEC)], 1.0, None, tmp_path / "best")
    assert [row.precision for row in result.rows] == ["fp32"]
    assert "beyond" in result.stopped


def test_a_checkpoint_is_exported_for_every_size(edgeseg: Run, labeled: Path, tmp_path: Path) -> None:
    """Drops are counted from the largest in float, whatever the order of the sizes."""
    torch = pytest.importorskip("torch")
    from edgeseg.recipe import NetConfig
    from edgeseg.training import checkpoint, nets

    torch.manual_seed(0)
    net = NetConfig("lite", width=0.25)
    saved = checkpoint.save(tmp_path / "small.pt", nets.build(net, len(tiny.SPEC.classes)), net, tiny.SPEC)
    words = ("autotune", saved, "-t", "onnxruntime-cpu", "--calibration", labeled, "--data", labeled)
    words += ("-o", tmp_path / "out", "--max-drop", "99", "--seconds", "0.1", "--json", tmp_path / "a.json")
    result = edgeseg(*words, "--size", "64x32", "--size", "96x64")
    assert result.code == 0, result.err
    rows = AutotuneResult.load(tmp_path / "a.json").rows
    assert [row.name for row in rows] == [
        f"small-{size}-{precision}" for size in ("96x64", "64x32") for precision in ("fp32", "fp16", "int8")
    ]
    assert rows[0].drop.value == 0
    assert Bundle.load(tmp_path / "out" / "trials" / "small-64x32-fp32").spec.width == 64
    assert not (tmp_path / "small.onnx").exists()
    result = edgeseg(*words, "--size", "90x64")
    assert result.code == 2 and "Input size 90x64.\nExpected multiples of 32" in result.err


def test_an_invalid_size_is_rejected(edgeseg: Run, network: Path, labeled: Path, tmp_path: Path) -> None:
    words = ("autotune", network, "--calibration", labeled, "--data", labeled, "-o", tmp_path / "out")
    result = edgeseg(*words, "--size", "big")
    assert result.code == 2 and "Size 'big' is not a size" in result.err
    result = edgeseg(*words, "--size", "48x32")
    assert result.code == 2 and "its input is fixed at 96x64" in result.err
    assert not (tmp_path / "out").exists()
