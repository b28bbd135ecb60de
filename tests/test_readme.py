"""The examples of README, CONTRIBUTING and docs/, run as written (```bash and ```python; ```console is for people)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(language, code, id=f"{page.relative_to(ROOT).with_suffix('')}-{language}{i}")
    for page in PAGES
    for i, (language, code) in enumerate(re.findall(r"```(bash|python)\n(.*?)```", page.read_text(), re.S))
]


@pytest.mark.parametrize(("language", "code"), BLOCKS)
def test_readme_block_runs(language: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["bash", "-euc", code] if language == "bash" else [sys.executable, "-c", code]
    completed = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr[-3000:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_targets(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [link for link in links if not link.startswith("http") and not (page.parent / link).exists()] == []


def test_every_make_target_named_in_the_readme_exists() -> None:
    named = set(re.findall(r"^make ([\w-]+)", (ROOT / "README.md").read_text(), re.M))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert named and named <= targets


def test_the_public_names_can_be_imported() -> None:
    import edgeseg

    names = set(edgeseg.__all__) - {"__version__"}
    assert len(names) >= 13 and re.fullmatch(r"\d+\.\d+\.\d+", edgeseg.__version__)
    assert all(getattr(edgeseg, name).__name__ == name for name in names)
    with pytest.raises(AttributeError, match="no attribute 'open_segmentor'"):
        getattr(edgeseg, "open_segmentor")  # noqa: B009  # mypy knows it is not there
