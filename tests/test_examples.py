"""The examples run as they are written: every script, and the notebook's cells as plain Python."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino", reason="the examples run the shipped bundles")

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
# What each script must print, so that an example that does nothing is noticed.
EXPECTED = {
    "segment_image": r"road +\d+\.\d%[\s\S]*wrote overlay\.png",
    "segment_video": r"wrote 50 frames to segmented\.mp4",
    "compile_and_evaluate": r"(99\.\d\d%|100\.00%) of the pixels[\s\S]*mIoU \d\d\.\d% on 6 frames",
    "compare_bundles": r"street-int8 takes \d+% of the time; they agree on 99\.\d\d% of the pixels",
    "gate": r"(pass|undecided) +mIoU drop",
}


def run(code: list[str], folder: Path) -> str:
    (folder / "models").symlink_to(ROOT / "models")
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    completed = subprocess.run([sys.executable, *code], cwd=folder, env=environment, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr[-3000:]
    return completed.stdout


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_example_script_runs(name: str, tmp_path: Path) -> None:
    if name == "compile_and_evaluate":
        pytest.importorskip("onnx")
    output = run([str(EXAMPLES / f"{name}.py")], tmp_path)
    assert re.search(EXPECTED[name], output), output


def test_example_notebook_runs(tmp_path: Path) -> None:
    cells = json.loads((EXAMPLES / "tour.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5 and not any(cell.get("outputs") for cell in cells), "commit the notebook without outputs"
    output = run(["-c", "\n\n".join(code)], tmp_path)
    assert "of the pixels are right" in output and (tmp_path / "tour.png").is_file()


def test_every_example_is_listed_and_tested() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    assert scripts == set(EXPECTED)
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"`{name}.py" in listed for name in scripts)
