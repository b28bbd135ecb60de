"""docs/ci: the workflow and the job are executed as written, on a good build and on a bad one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import pytest
import yaml

Edgeseg = Callable[..., Any]
ROOT = Path(__file__).parents[1]


def github() -> tuple[dict[str, str], list[str], list[str]]:
    """Variables, installing commands, the others."""
    job = yaml.safe_load((ROOT / "docs" / "ci" / "github.yml").read_text())["jobs"]["gate"]
    runs = {step.get("name", ""): step["run"] for step in job["steps"] if "run" in step}
    return job["env"], [runs.pop("install")], list(runs.values())


def gitlab() -> tuple[dict[str, str], list[str], list[str]]:
    job = yaml.safe_load((ROOT / "docs" / "ci" / "gitlab.yml").read_text())["gate"]
    return job["variables"], job["before_script"], job["script"]


@pytest.fixture
def repository(edgeseg: Edgeseg, bundle: Path, street: Path, tmp_path: Path) -> Path:
    """The repository that the examples expect."""
    shutil.copytree(bundle, tmp_path / "bundle")
    shutil.copytree(street, tmp_path / "data")
    result = edgeseg("baseline", bundle, "--data", street, "--out", tmp_path / "baseline.json")
    assert result.code == 0, result.err
    return tmp_path


def shell(commands: list[str], folder: Path, variables: dict[str, str], path: str) -> list[int]:
    """Exit codes up to the first that is not 0, as a CI system does."""
    codes: list[int] = []
    for command in commands:
        env = {**os.environ, **variables, "PATH": f"{path}:{os.environ['PATH']}", "GITHUB_STEP_SUMMARY": "summary.md"}
        codes.append(subprocess.run(["bash", "-e", "-c", command], cwd=folder, env=env, timeout=280).returncode)
        if codes[-1]:
            break
    return codes


@pytest.mark.parametrize("system", [github, gitlab])
def test_a_good_build_passes_and_a_bad_one_does_not(system: Callable[[], Any], repository: Path) -> None:
    variables, _, commands = system()
    here = str(Path(sys.executable).parent)
    assert shell(commands, repository, variables, here) == [0, 0]
    assert ElementTree.parse(repository / "gate.xml").getroot().get("failures") == "0"
    assert "edgeseg gate: pass" in (repository / "summary.md").read_text()
    for image in (repository / "bundle" / "golden").glob("?.png"):  # damaged in transit
        cv2.imwrite(str(image), 255 - cv2.imread(str(image)))
    assert shell(commands, repository, variables, here) == [2]


@pytest.mark.slow
@pytest.mark.parametrize("system", [github, gitlab])
def test_the_examples_install_edgeseg_themselves(system: Callable[[], Any], repository: Path) -> None:
    variables, install, commands = system()
    venv = repository / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    variables = {**variables, "EDGESEG": str(ROOT)}
    assert shell([*install, *commands], repository, variables, str(venv / "bin")) == [0, 0, 0]
