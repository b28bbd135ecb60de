"""train, distill, prune, export from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeseg.cli.train import app
from edgeseg.errors import OptionError

RECIPE = """
name = "tiny"
[data]
{data}
size = [64, 96]
[teacher]
width = 0.5
epochs = 1
[student]
width = 0.25
epochs = 1
[prune]
epochs = 1
round_to = 2
"""


def call(*words: object) -> str:
    result = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_every_stage(root: Path, tmp_path: Path) -> None:
    recipe, out = tmp_path / "r.toml", tmp_path / "out"
    recipe.write_text(RECIPE.format(data=f"root = {str(root)!r}"))
    said = call("train", recipe, "--role", "teacher", "-o", out)
    assert "Wrote" in said and "val mIoU" in said and "GMACs" in said
    call("train", recipe, "--role", "student", "-o", out, "--data", root)
    call("distill", recipe, "--teacher", out / "teacher.pt", "-o", out)
    call("prune", recipe, "--student", out / "distilled.pt", "--teacher", out / "teacher.pt", "-o", out)
    call("export", out / "pruned.pt", "-o", out / "tiny.onnx")
    assert {p.name for p in out.glob("*.pt")} == {"teacher.pt", "student.pt", "distilled.pt", "pruned.pt"}
    assert (out / "tiny.onnx").is_file()


def test_a_recipe_that_renders_needs_a_folder_here(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE.format(data="synthetic = { train = 2 }"))
    with pytest.raises(OptionError, match=r"renders its own frames.*\nName one made by `edgeseg synth`"):
        call("train", recipe, "--role", "student", "-o", tmp_path)
