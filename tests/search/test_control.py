"""Accuracy control: the fewest excluded layers, within a budget, continued after it was killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.bundle import Bundle
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.data.dataset import Dataset
from edgeseg.evaluation.statistics import Estimate
from edgeseg.results.search import ControlCandidate, ControlResult
from edgeseg.runtime import open_segmenter
from edgeseg.search.control import _search, best, control, counted
from edgeseg.search.trials import Budget, Trials
from edgeseg.target import Target
from edgeseg.timing import Percentiles

pytest.importorskip("onnx")

Run = Callable[..., Any]
TARGET = "onnxruntime-cpu"
LAST = "t6"


def trials_in(folder: Path, data: Path, target: str = TARGET, budget: Budget | None = None) -> tuple[Trials, list[str]]:
    messages: list[str] = []
    chosen, frames = CalibrationSet.choose(data, 10), Dataset.open(data, "val")
    return Trials(folder, Target.load(target), chosen, frames, budget or Budget(), messages.append, 0.2), messages


@pytest.mark.parametrize("target", [TARGET, "tflite-cpu", "openvino-cpu", "jetson-orin"])
def test_only_the_layer_that_breaks_int8_is_excluded(
    stubborn: Path, labeled: Path, tmp_path: Path, target: str
) -> None:
    trials, messages = trials_in(tmp_path / "trials", labeled, target)
    result = control(trials, stubborn, tiny.SPEC, 4.0, tmp_path / "out")
    # NNCF's floor of scales rounds the weights in front, too.
    expected = (LAST, "t4") if target == "openvino-cpu" else (LAST,)
    assert result.held and result.kept == expected
    rows = {row.k: row.drop.value for row in result.rows}
    (chosen,) = [row for row in result.rows if row.name == result.chosen]
    assert chosen.kept == expected and {row.k for row in result.rows} >= {0, len(expected)}
    assert rows[0] > 50 and rows[len(expected)] <= 4.0
    assert result.drop.low <= result.drop.value <= result.drop.high
    assert result.noise[0].layer == LAST
    assert any("excluding 1 of 3 layers next" in line and "s left" in line for line in messages)
    bundle = Bundle.load(tmp_path / "out")
    assert (bundle.name, bundle.precision, bundle.manifest.kept) == ("out", "int8", expected)
    assert bundle.manifest.control["drop"] == vars(result.drop)
    with open_segmenter(bundle.path, backend=bundle.manifest.proved_by) as segmenter:
        assert all((segmenter(frame).classmap == mask).all() for frame, mask in bundle.golden())


def test_no_layer_is_ranked_where_plain_int8_holds(network: Path, labeled: Path, tmp_path: Path) -> None:
    trials, _ = trials_in(tmp_path / "trials", labeled)
    result = control(trials, network, tiny.SPEC, 20.0, tmp_path / "out")
    assert (result.held, result.chosen, result.kept, result.noise) == (True, "excluding-000", (), ())
    assert [row.name for row in result.rows] == ["excluding-000"]


def test_no_layer_is_excluded_where_another_variant_of_int8_holds(fragile: Path, labeled: Path, tmp_path: Path) -> None:
    """Equalizing channels fixes this network."""
    trials, messages = trials_in(tmp_path / "trials", labeled)
    result = control(trials, fragile, tiny.SPEC, 4.0, tmp_path / "out")
    assert (result.held, result.chosen, result.kept) == (True, "excluding-000-equalized", ())
    drops = {row.variant: row.drop.value for row in result.rows}
    assert list(drops) == ["", "equalized", "uncorrected", "mean", "percentile", "mse", "entropy"]  # all, before layers
    assert drops["equalized"] == min(drops.values()) <= 4.0 and drops[""] > 50
    assert any("equalized: " in line for line in messages)
    assert Bundle.load(tmp_path / "out").manifest.ptq.equalize


def test_a_second_run_measures_nothing_again(stubborn: Path, labeled: Path, tmp_path: Path) -> None:
    first, _ = trials_in(tmp_path / "trials", labeled)
    result = control(first, stubborn, tiny.SPEC, 4.0, tmp_path / "out")
    begin = time.monotonic()
    again, messages = trials_in(tmp_path / "trials", labeled)
    assert control(again, stubborn, tiny.SPEC, 4.0, tmp_path / "out") == result
    assert time.monotonic() - begin < sum(row.seconds for row in result.rows)
    assert {line for line in messages if line.endswith("unchanged")} >= {
        f"{n}: unchanged" for n in ("fp32", "excluding-000")
    }
    assert not [line for line in messages if "deploy graph" in line]
    # A tighter limit uses what is there, and adds to it.
    more, messages = trials_in(tmp_path / "trials", labeled)
    tighter = control(more, stubborn, tiny.SPEC, 0.0, tmp_path / "out")
    assert "excluding-001: unchanged" in messages

    def without_speed(rows: tuple[ControlCandidate, ...]) -> list[ControlCandidate]:
        """Speeds are measured anew, beside what was added."""
        none = Percentiles(0, 0, 0)
        return [replace(row, latency_ms=none, fps=0, rounds_p50_ms=()) for row in rows if row.k <= 1]

    assert without_speed(tighter.rows) == without_speed(result.rows)


def test_a_killed_run_continues(stubborn: Path, labeled: Path, tmp_path: Path) -> None:
    """The command is killed once a bundle is finished; the same command then repeats no finished measurement."""
    words = ("control", stubborn, "-t", TARGET, "--calibration", labeled, "--data", labeled, "-o", tmp_path / "out")
    words += ("--max-drop", "4", "--seconds", "0.2", "--json", tmp_path / "c.json")
    command = [sys.executable, "-m", "edgeseg", *map(str, words)]
    ledger = tmp_path / "out.trials" / "ledger.json"

    def finished() -> dict[str, Any]:
        rows = json.loads(ledger.read_text()) if ledger.is_file() else {}
        return {name: row for name, row in rows.items() if row.get("result")}

    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        end = time.monotonic() + 120
        while not finished() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGKILL
    before = finished()
    assert before
    assert not (tmp_path / "out").exists()
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert outcome.returncode == 0, outcome.stderr
    after = finished()
    assert len(after) > len(before)
    assert {name: after[name] for name in before} == before  # the seconds each took, too
    assert Bundle.load(tmp_path / "out").manifest.kept == (LAST,)
    assert not [*(tmp_path / "out.trials").glob(".*")]


def test_with_sure_the_whole_interval_has_to_hold(stubborn: Path, labeled: Path, tmp_path: Path) -> None:
    trials, _ = trials_in(tmp_path / "trials", labeled)
    plain = control(trials, stubborn, tiny.SPEC, 4.0, tmp_path / "out")
    drop = plain.drop
    assert drop.value < drop.high
    between = (drop.value + drop.high) / 2
    assert control(trials, stubborn, tiny.SPEC, between, tmp_path / "out").chosen == plain.chosen
    sure = control(trials, stubborn, tiny.SPEC, between, tmp_path / "out", sure=True)
    assert sure.chosen != plain.chosen or not sure.held
    assert sure.held == (sure.drop.high <= between)
    assert counted(Estimate(1, 0, 2), True) == 2 and counted(Estimate(1, 0, 2), False) == 1


# The budget


def test_a_budget_of_nothing_still_gives_plain_int8(stubborn: Path, labeled: Path, tmp_path: Path) -> None:
    trials, _ = trials_in(tmp_path / "trials", labeled, budget=Budget(minutes=1e-6))
    result = control(trials, stubborn, tiny.SPEC, 4.0, tmp_path / "out")
    assert (result.held, result.chosen) == (False, "excluding-000")
    assert "the next step would go beyond 1e-06 minutes" in result.stopped
    assert Bundle.load(tmp_path / "out").manifest.control["held"] is False


def test_memory_has_a_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Budget(megabytes=1).spent().startswith("memory reached ")
    assert Budget(megabytes=1 << 30).spent() == Budget().spent() == ""


def test_a_step_that_would_not_fit_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(minutes=1)
    budget.begin -= 30
    budget.steps.append(20)
    assert budget.spent() == ""
    budget.later = 15  # seconds to time them all at the end
    assert "beyond 1 minutes (0.5 used)" in budget.spent()
    budget.later = 0
    budget.steps.append(40)
    assert "beyond 1 minutes (0.5 used)" in budget.spent()
    assert budget.eta(3) == "about 120 s left"


# The search


@given(st.integers(1, 200), st.integers(0, 250))
def test_it_finds_the_smallest_k_that_holds_in_few_steps(count: int, smallest: int) -> None:
    requested: list[int] = []

    def holds(k: int) -> bool:
        requested.append(k)
        return k >= smallest

    trials: Any = SimpleNamespace(budget=Budget(), log=lambda text: None)
    assert _search(trials, holds, count) == ""
    result = [k for k in requested if k >= smallest]
    assert (min(result) if result else None) == (max(smallest, 1) if smallest <= count else None)
    assert len(requested) == len(set(requested)) and len(requested) <= 2 * count.bit_length() + 1
    assert all(1 <= k <= count for k in requested)


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(-5, 50)), min_size=1), st.floats(0, 10))
def test_the_best_holds_if_any_does(tried: list[tuple[int, float]], limit: float) -> None:
    excluded, lost = tried[best(tried, limit)]
    holding = [pair for pair in tried if pair[1] <= limit]
    if holding:
        assert (excluded, lost) == min(holding)
    else:
        assert lost <= min(v for _, v in tried) + 1e-3


# Bad input, at the command line


@pytest.fixture
def words(network: Path, labeled: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "model": network,
        "calibration": labeled,
        "data": labeled,
        "split": "val",
        "target": TARGET,
        "out": tmp_path / "out",
        "max-drop": 20,
        "seconds": 0.2,
    }


def flags(values: dict[str, Any]) -> list[str]:
    return [str(values["model"]), *(f"--{key}={value}" for key, value in values.items() if key != "model")]


def few(folder: Path, labeled: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        shutil.copy(labeled / "train" / "images" / f"{i}.png", folder)
    return folder


def test_a_calibration_set_that_is_too_small_is_rejected(
    edgeseg: Run, words: dict[str, Any], labeled: Path, tmp_path: Path
) -> None:
    for verb in ("control", "autotune", "sensitivity"):
        values = {**words, "calibration": few(tmp_path / verb, labeled, 3)}
        if verb == "sensitivity":
            values = {key: values[key] for key in ("model", "calibration", "target")}
        result = edgeseg(verb, *flags(values))
        assert result.code == 2
        assert "holds 3 different frames for calibration" in result.err and "at least 8" in result.err


def test_an_empty_calibration_set_is_rejected(
    edgeseg: Run, words: dict[str, Any], labeled: Path, tmp_path: Path
) -> None:
    result = edgeseg("control", *flags({**words, "calibration": few(tmp_path / "few", labeled, 0)}))
    assert result.code == 2 and "No images in" in result.err


def test_calibration_frames_may_not_be_evaluated_on(
    edgeseg: Run, words: dict[str, Any], labeled: Path, tmp_path: Path
) -> None:
    folder = few(tmp_path / "frames", labeled, 9)
    shutil.copy(labeled / "val" / "images" / "2.png", folder / "other_name.png")
    for verb in ("control", "autotune"):
        result = edgeseg(verb, *flags({**words, "calibration": folder}))
        assert result.code == 2
        assert "1 of the 4 frames of clouds val are also calibration frames (2.png)" in result.err
        assert not (tmp_path / "out").exists()


def test_the_best_bundle_is_written_where_no_drop_is_small_enough(
    edgeseg: Run, words: dict[str, Any], stubborn: Path, tmp_path: Path
) -> None:
    """The float model reaches 100 %: a budget of no time leaves plain INT8, which is written as the best."""
    result = edgeseg("control", *flags({**words, "model": stubborn, "max-drop": 0.1, "max-minutes": 1e-6}))
    assert result.code == 1
    assert "limit missed" in result.err and "points lost, 0.1 allowed; the best bundle was written" in result.err
    assert "stopped early" in result.err and "run the same command again to continue" in result.err
    assert Bundle.load(tmp_path / "out").manifest.control["held"] is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "jetson-nano"}, "has no precision 'int8'"),
        ({"split": "vall"}, "Did you mean 'val'?"),
        ({"target": "onnxruntime-cpx"}, "Did you mean 'onnxruntime-cpu'?"),
    ],
)
def test_invalid_values_are_rejected(edgeseg: Run, words: dict[str, Any], change: dict[str, Any], message: str) -> None:
    result = edgeseg("control", *flags({**words, **change}))
    assert result.code == 2 and message in result.err


def test_the_report_shows_noise_and_the_excluded_layers(
    edgeseg: Run, words: dict[str, Any], stubborn: Path, tmp_path: Path
) -> None:
    result = edgeseg("control", *flags({**words, "model": stubborn, "max-drop": 4}))
    assert result.code == 0, result.err
    assert "excluded: t6 (" in result.out
    found = ControlResult.load(tmp_path / "out.trials" / "report.json")
    text, page = ((tmp_path / "out.trials" / f"report.{kind}").read_text() for kind in ("md", "html"))
    for row in found.noise:
        mark = "excluded" if row.layer == LAST else "INT8"
        assert f"| {row.layer} | Conv | {row.sqnr_db:.1f} | {mark} |" in text
        assert f"<td>{row.sqnr_db:.1f}</td><td>{mark}</td>" in page
    assert "1 layers excluded from INT8" in text and "4 allowed: held" in text


def test_layer_names_from_a_model_are_neither_markup_nor_paths(
    edgeseg: Run, words: dict[str, Any], stubborn: Path, labeled: Path, tmp_path: Path
) -> None:
    """They are neither markup nor paths, wherever they are shown or stored."""
    import onnx

    model = onnx.load(str(stubborn))
    names = ("[/bold]", "../../../../away", "<b>&")
    for node, name in zip([n for n in model.graph.node if n.op_type == "Conv"], names):
        node.name = name
    odd = tmp_path / "[red]odd.onnx"
    onnx.save(model, str(odd))
    precious = tmp_path / "away"
    precious.mkdir()
    result = edgeseg("sensitivity", odd, "--calibration", labeled, "--target", TARGET)
    assert result.code == 0 and all(name in result.out for name in names), result.err
    result = edgeseg("control", *flags({**words, "model": odd, "max-drop": 4}))
    assert result.code == 0, result.err
    assert "excluded: <b>&" in result.out and precious.is_dir()
    assert "<b>&" not in (tmp_path / "out.trials" / "report.html").read_text()
    result = edgeseg("compile", odd, "-p", "int8", "-t", TARGET, "--calibration", labeled, "--exclude", "[/bold]",
                  "--allow-loss", "-o", tmp_path / "kept")  # fmt: skip
    assert result.code == 0 and "[/bold]" in result.out


def test_the_test_split_is_used_with_a_warning(edgeseg: Run, words: dict[str, Any]) -> None:
    result = edgeseg("control", *flags({**words, "split": "test", "max-drop": 50}))
    assert result.code == 0, result.err
    assert "should not be reported on it" in result.err
