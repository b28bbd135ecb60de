"""dvc.yaml of a recipe: DVC runs it, and a change of the recipe runs what depends on it and nothing else."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from edgeseg.bom import check
from edgeseg.bundle import Bundle

yaml = pytest.importorskip("yaml")
Edgeseg = Callable[..., Any]
RECIPE = """
name = "tiny"
[data]
synthetic = { train = 10, val = 2, test = 4, seed = 5 }
size = [64, 96]
[teacher]
width = 0.5
epochs = 1
[student]
width = 0.25
epochs = 1
[prune]
epochs = 1
[quantize]
frames = 8
max_drop = 100.0
[targets]
compile = ["openvino-cpu:fp32", "onnxruntime-cpu:int8"]
golden = "synthetic"
"""
BUNDLES = ["tiny-fp32", "tiny-onnxruntime-cpu-int8"]
STAGES = ["render", "teacher", "student", "distilled", "pruned", "export-pruned",
          *(f"{verb}-{name}" for name in BUNDLES for verb in ("compile", "eval"))]  # fmt: skip


def written(folder: Path, edgeseg: Edgeseg, recipe: str = RECIPE) -> dict[str, Any]:
    (folder / "recipe.toml").write_text(recipe)
    result = edgeseg("pipeline", folder / "recipe.toml", "--dvc", folder / "dvc.yaml")
    assert result.code == 0, result.err
    document = yaml.safe_load((folder / "dvc.yaml").read_text())
    assert isinstance(document, dict)
    return document


def test_every_stage_is_a_command_that_edgeseg_has(tmp_path: Path, edgeseg: Edgeseg) -> None:
    from edgeseg.cli import app

    root = typer.main.get_command(app)
    stages = written(tmp_path, edgeseg, RECIPE + "[qat]\nepochs = 1\n")["stages"]
    assert "qat" in stages and "export-qat" in stages
    for stage in stages.values():
        program, verb, *words = shlex.split(stage["cmd"])
        assert program == "edgeseg"
        root.commands[verb].make_context(verb, words)  # type: ignore[attr-defined]


def test_a_stage_depends_on_what_came_before(tmp_path: Path, edgeseg: Edgeseg) -> None:
    document = written(tmp_path, edgeseg)
    assert list(document["stages"]) == STAGES
    made: list[str] = []
    for stage in document["stages"].values():
        for path in stage.get("deps", []):
            assert any(path == out or path.startswith(f"{out}/") for out in made), path
        made += stage.get("outs", [])
    assert document["stages"]["pruned"]["params"] == [{"recipe.toml": ["data", "student", "prune", "targets"]}]
    assert all(not Path(path).is_absolute() for path in made)


def test_files_of_the_recipe_are_dependencies(street: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    start = f'init = "start.pt"\nweights = "imagenet"\n[student]\nweights = "{tmp_path}/w.safetensors"\n'
    recipe = f'name = "x"\n[data]\nroot = "{street}"\nsize = [64, 96]\n[teacher]\n{start}'
    stages = written(tmp_path, edgeseg, recipe)["stages"]
    assert "render" not in stages
    data = os.path.relpath(street, tmp_path)
    assert stages["teacher"]["deps"] == [*(f"{data}/{name}" for name in ("classes.txt", "train", "val")), "start.pt"]
    assert stages["student"]["deps"][-1] == "w.safetensors"


def test_names_that_yaml_or_dvc_would_misread(tmp_path: Path, edgeseg: Edgeseg) -> None:
    folder = tmp_path / "a: b's #1 ${x}"
    folder.mkdir()
    (folder / "recipe.toml").write_text(RECIPE)
    result = edgeseg("pipeline", folder / "recipe.toml", "--dvc", tmp_path / "dvc.yaml")
    assert result.code == 0, result.err
    cmd = yaml.safe_load((tmp_path / "dvc.yaml").read_text())["stages"]["teacher"]["cmd"]
    assert shlex.split(cmd)[2] == r"a: b's #1 \${x}/recipe.toml"


@pytest.mark.parametrize(
    ("name", "message"), [("dvc.yml", r"DVC does not read dvc\.yml"), ("dvc.yaml", r"dvc\.yaml exists")]
)
def test_what_is_refused(name: str, message: str, tmp_path: Path, edgeseg: Edgeseg) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    result = edgeseg("pipeline", tmp_path / "recipe.toml", "--dvc", tmp_path / name)
    assert result.code == 2
    assert message.replace("\\", "") in result.err


@pytest.fixture
def dvc(tmp_path: Path) -> Callable[..., str]:
    """dvc("verb", ...): the real program in a repository of its own; what it printed."""
    program = shutil.which("dvc")
    if program is None or shutil.which("git") is None:
        pytest.skip("needs dvc and git")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", "HOME": str(tmp_path)}

    def run(*words: str) -> str:
        done = subprocess.run([str(program), *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    run("init", "-q")
    return run


def test_dvc_reproduces_it(dvc: Callable[..., str], tmp_path: Path, edgeseg: Edgeseg) -> None:
    pytest.importorskip("torch")
    written(tmp_path, edgeseg)
    printed = dvc("repro")
    assert [name for name in STAGES if f"Running stage '{name}'" not in printed] == []
    for name in BUNDLES:
        assert check(Bundle.load(tmp_path / "runs" / "tiny" / "bundles" / name))
    assert "eval/tiny-fp32.json" in dvc("metrics", "show")
    assert "up to date" in dvc("status")
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("[prune]\nepochs = 1", "[prune]\nepochs = 2"))
    again = dvc("repro")
    assert [name for name in STAGES if f"Running stage '{name}'" in again] == STAGES[4:]
    bundle = tmp_path / "runs" / "tiny" / "bundles" / "tiny-fp32"
    digest = Bundle.load(bundle).digest
    shutil.rmtree(bundle)
    dvc("checkout")
    assert Bundle.load(bundle).digest == digest
