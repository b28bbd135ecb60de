"""edgeseg search: real designs, compiled, timed and trained; killed and shared."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from edgeseg.cli import app
from edgeseg.errors import OptionError
from edgeseg.precision import Precision
from edgeseg.recipe import Recipe
from edgeseg.search.architecture import choose, hypervolume
from edgeseg.search.designs import SAMPLERS, Design, Measured, Space

optuna = pytest.importorskip("optuna")
pytest.importorskip("openvino")
RECIPE = """
name = "streets"
seed = 1
[data]
root = "{root}"
size = [64, 96]
[student]
arch = "lite"
width = 0.25
batch = 4
epochs = 2
[machine]
pictures = 0
"""
SMALL = ("--arch", "lite", "--width", "0.25", "--width", "0.5", "--precision", "fp32", "--epochs", "1")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    made = CliRunner().invoke(app, ["synth", str(folder / "data"), "--train", "4", "--val", "2", "--test", "1"])
    assert made.exit_code == 0
    (folder / "recipe.toml").write_text(RECIPE.format(root=folder / "data"))
    return folder / "recipe.toml"


def run(recipe: Path, out: Path, *words: object) -> Result:
    return CliRunner().invoke(app, ["search", str(recipe), "--out", str(out), *SMALL, *map(str, words)])


def trials(out: Path) -> dict[str, list[str]]:
    """The states of the trials of each sampler."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(out / "trials" / "trials.journal")))
    return {
        name: [trial.state.name for trial in optuna.load_study(study_name=name, storage=storage).trials]
        for name in SAMPLERS
    }


def test_a_student_is_found_and_its_recipe_trains(recipe: Path, tmp_path: Path) -> None:
    result = run(recipe, tmp_path / "out", "--trials", 2, "--json", "-")

    assert result.exit_code == 0, (result.output, result.exception)
    found = json.loads(result.stdout)
    assert found["kind"] == "architecture-search"
    assert all(states == ["COMPLETE"] * 2 for states in trials(tmp_path / "out").values())
    rows = {row["name"]: row for row in found["rows"]}
    assert found["own"] == "lite-0.25-96x64-fp32" and "own" in rows[found["own"]]["found_by"]
    best = max(rows.values(), key=lambda row: row["miou"])
    assert rows[found["chosen"]]["miou"] == best["miou"]
    assert set(found["hypervolume"]) == set(SAMPLERS) and 0 < found["hypervolume"]["guided"] <= 1
    student = Recipe.load(tmp_path / "out" / "recipe.toml")
    assert (student.student.arch, student.student.width) == ("lite", rows[found["chosen"]]["width"])
    assert list(student.data.size[::-1]) == rows[found["chosen"]]["size"]
    assert student.student.epochs == 2  # the recipe's own, not the search's
    words = ["train", str(tmp_path / "out" / "recipe.toml"), "--role", "student", "--out", str(tmp_path / "trained")]
    assert CliRunner().invoke(app, words).exit_code == 0

    again = run(recipe, tmp_path / "out", "--trials", 2, "--json", "-")
    assert json.loads(again.stdout)["rows"] == found["rows"]  # nothing is measured twice


def test_what_is_too_slow_is_not_trained(recipe: Path, tmp_path: Path) -> None:
    result = run(recipe, tmp_path / "out", "--trials", 1, "--max-ms", 0.0001, "--json", "-")

    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert not found["held"] and all(row["miou"] is None for row in found["rows"])
    assert not list((tmp_path / "out").rglob("student.pt"))


def test_measurements_of_another_search_are_not_taken(recipe: Path, tmp_path: Path) -> None:
    assert run(recipe, tmp_path / "out", "--trials", 1, "--max-ms", 0.0001).exit_code == 1
    other = run(recipe, tmp_path / "out", "--trials", 1)
    assert isinstance(other.exception, OptionError)
    assert "was begun with another max-ms." in str(other.exception)


def test_a_killed_search_goes_on(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "edgeseg", "search", str(recipe), "--out", str(out), *SMALL, "--trials", "2"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    journal = out / "trials" / "trials.journal"
    until = time.monotonic() + 120
    while b'"param_name"' not in (journal.read_bytes() if journal.exists() else b""):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    measured = {path: path.stat().st_mtime_ns for path in out.rglob("measured.json")}

    result = run(recipe, out, "--trials", 2)

    assert result.exit_code == 0, (result.output, result.exception)
    for states in trials(out).values():
        assert states.count("COMPLETE") == 2 and "RUNNING" not in states
    assert measured and all(path.stat().st_mtime_ns == when for path, when in measured.items())


@pytest.mark.slow
def test_two_processes_share_the_trials(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-m", "edgeseg", "search", str(recipe), "--out", str(out), *SMALL, "--trials", "2"]
    workers = [subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for _ in range(2)]
    errors = [worker.communicate(timeout=250)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], errors
    for states in trials(out).values():
        assert 2 <= states.count("COMPLETE") <= 3 and "RUNNING" not in states  # both may begin a last one


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--arch", "light"), "light"),
        (("--precision", "int4"), "int4"),
        (("--width", "99"), "Width 99 cannot be built"),
        (("--target", "jetson-orin"), "cannot be measured here"),
    ],
)
def test_a_space_that_holds_nothing(words: tuple[str, ...], message: str, recipe: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["search", str(recipe), "--out", str(tmp_path / "out"), *words])
    assert isinstance(result.exception, OptionError), (result.output, result.exception)
    assert re.search(message, str(result.exception)), str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_renders_its_frames(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    text = RECIPE.replace('root = "{root}"', "synthetic = {{ train = 4, val = 2, test = 1, seed = 1 }}")
    path.write_text(text.format())
    result = CliRunner().invoke(app, ["search", str(path)])
    assert isinstance(result.exception, OptionError)
    assert "renders its own frames" in str(result.exception)


def design(width: float) -> Design:
    return Design("lite", width, 64, 96, Precision.FP32)


def test_the_most_accurate_within_the_limit_is_chosen() -> None:
    rows = [
        (design(1), Measured(1, 0.5, 0)),
        (design(2), Measured(2, 0.6, 0)),
        (design(3), Measured(3, 0.7, 0)),
        (design(4), Measured(1.5, 0.6, 0)),
    ]
    assert choose(rows, None) == design(3)
    assert choose(rows, 2.5) == design(4)
    assert choose(rows, 0.5) == design(1)


points = st.lists(st.tuples(st.just("x"), st.floats(0.1, 10), st.floats(0, 1)), max_size=6)


@given(points)
def test_hypervolume_is_the_area_that_is_dominated(found: list[tuple[str, float, float]]) -> None:
    ms, miou = np.meshgrid((np.arange(400) + 0.5) / 40, (np.arange(400) + 0.5) / 400)
    covered = np.zeros_like(ms, bool)
    for _, each_ms, each_miou in found:
        covered |= (ms >= each_ms) & (miou <= each_miou)
    assert abs(hypervolume(found, 10.0) - covered.mean()) < 0.01


def test_the_recipe_without_an_encoder_spans_families() -> None:
    own: Any = Recipe.from_dict({"name": "x", "data": {"root": "d", "size": [224, 384]}}, Path("x.toml"))
    space = Space.of(own, [Precision.FP32])
    assert space.archs == ("lite", "liteseg", "ddrnet")
    assert (224, 384) in space.sizes and all(side % 32 == 0 for size in space.sizes for side in size)
    student: Any = {"arch": "lite", "encoder": "tu-tf_efficientnet_lite0"}
    fixed = Recipe.from_dict(
        {"name": "x", "data": {"root": "d", "size": [224, 384]}, "student": student}, Path("x.toml")
    )
    assert Space.of(fixed, [Precision.FP32]).archs == ("lite",)
