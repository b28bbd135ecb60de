"""Every benchmark imports what it uses and describes its options, so that none breaks unnoticed."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
LIBRARIES = {"networks.py", "foreign_nets.py"}  # imported by benchmarks, not run
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("*.py") if path.name not in LIBRARIES)
PEERS = sorted(path.stem for path in (BENCHMARKS / "peers").glob("[!_]*.py"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=BENCHMARKS, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("script", SCRIPTS)
def test_benchmark_describes_its_options(script: str) -> None:
    completed = run(script, "--help")
    assert completed.returncode == 0, completed.stderr[-2000:]
    assert completed.stdout.startswith(f"usage: {script}")
    assert "--" in completed.stdout.split("show this help message")[1], "no option of its own"


@pytest.mark.parametrize("script", SCRIPTS)
def test_benchmark_rejects_an_unknown_option(script: str) -> None:
    completed = run(script, "--no-such-option")
    assert completed.returncode == 2
    assert "error:" in completed.stderr


def test_peers_import_without_the_packages_they_compare_with() -> None:
    names = [f"peers.{name}" for name in PEERS]
    completed = run("-c", f"import networks, peers; from importlib import import_module as i; [i(n) for n in {names}]")
    assert completed.returncode == 0, completed.stderr[-2000:]


def test_benchmarks_use_the_api_as_it_is_typed() -> None:
    """mypy finds a keyword or field that was renamed, which importing does not."""
    pytest.importorskip("mypy")
    files = [*SCRIPTS, *LIBRARIES, "peers"]
    root = str(BENCHMARKS.parent)
    completed = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", *(f"benchmarks/{name}" for name in files)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=280,
        env={"MYPYPATH": "benchmarks", "PYTHONPATH": root},
    )
    assert completed.returncode == 0, completed.stdout[-3000:]
