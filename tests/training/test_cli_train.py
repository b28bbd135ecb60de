"""train, distill, prune and export from the command line, and how an interrupted run is resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeseg.cli.train import FORMATS, app
from edgeseg.errors import OptionError
from edgeseg.training import checkpoint, export

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
    output = call("train", recipe, "--role", "teacher", "-o", out)
    assert "teacher.pt: val mIoU" in output and "GMACs" in output
    call("train", recipe, "--role", "student", "-o", out, "--data", root)
    call("distill", recipe, "--teacher", out / "teacher.pt", "-o", out)
    call("prune", recipe, "--student", out / "distilled.pt", "--teacher", out / "teacher.pt", "-o", out)
    call("export", out / "pruned.pt", "-o", out / "tiny.onnx")
    assert {p.name for p in out.glob("*.pt")} == {"teacher.pt", "student.pt", "distilled.pt", "pruned.pt"}
    assert (out / "tiny.onnx").is_file()


def test_a_recipe_that_renders_needs_a_folder_here(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE.format(data="synthetic = { train = 2 }"))
    with pytest.raises(OptionError, match=r"renders its own frames.*\nPass a folder written by `edgeseg synth`"):
        call("train", recipe, "--role", "student", "-o", tmp_path)


def test_the_command_line_knows_every_format() -> None:
    assert set(FORMATS) == set(export.FORMATS)


# SIGINT may be ignored in this process (nohup, background jobs), and children inherit that.
MAIN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from edgeseg.cli import main; main()"


def start(recipe: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAIN, "train", recipe, "--role", "student", "-o", out]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.timeout(240)
def test_ctrl_c_says_how_to_resume_and_the_same_command_resumes(root: Path, tmp_path: Path) -> None:
    recipe, out = tmp_path / "r.toml", tmp_path / "out"
    student = "[student]\nwidth = 0.25\nbatch = 4\nepochs = {}\n"
    data = f"name = 'tiny'\n[data]\nroot = {str(root)!r}\nsize = [64, 96]\n"
    recipe.write_text(data + student.format(10_000))
    process = start(recipe, out)
    try:
        last = out / "student" / "last.pt"
        while not last.is_file():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, errors
    assert "Interrupted; run the same command again to resume" in errors
    assert "Traceback" not in errors
    before = checkpoint.read(last)["epoch"]
    process = start(recipe, out)
    try:
        while checkpoint.read(last)["epoch"] == before:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()
    history = checkpoint.read(last)["history"]
    assert [row["epoch"] for row in history] == list(range(1, len(history) + 1)) and len(history) > before
