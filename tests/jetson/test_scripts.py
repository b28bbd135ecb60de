"""The board's scripts on file trees laid out as each JetPack does, and the container's file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
JETSON = ROOT / "jetson"
BIN = Path(sys.executable).parent
RELEASES = {
    "# R32 (release), REVISION: 7.4, GCID: 1": ("4.6", "runner"),
    "# R35 (release), REVISION: 5.0, GCID: 1": ("5", "runner"),
    "# R36 (release), REVISION: 3.0, GCID: 1": ("6.0", "native"),
    "# R36 (release), REVISION: 4.3, GCID: 1": ("6.1", "native"),
    "# R38 (release), REVISION: 2.0, GCID: 1": ("7", "native"),
}


def board(tmp_path: Path, release: str, mode: str = "pmode:0000") -> Path:
    """A root folder of a board where every package is installed."""
    root = tmp_path / "root"
    for name, text in {
        "etc/nv_tegra_release": release,
        "proc/device-tree/model": "NVIDIA Jetson\0",
        "var/lib/nvpmodel/status": mode,
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE 1\n< POWER_MODEL ID=2 NAME=15W >",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def script(name: str, tmp_path: Path, *words: str, packages: str = "install ok installed") -> tuple[int, str, str]:
    """Run a script on that board, where dpkg-query prints `packages` and the power tools print their arguments."""
    tools = tmp_path / "tools"
    tools.mkdir(exist_ok=True)
    for tool, body in {
        "dpkg-query": f"echo '{packages}'",
        "nvpmodel": 'echo "nvpmodel $*"',
        "jetson_clocks": "echo jetson_clocks",
    }.items():
        (tools / tool).write_text(f"#!/bin/sh\n{body}\n")
        (tools / tool).chmod(0o755)
    env = {**os.environ, "PATH": f"{tools}:{BIN}:{os.environ['PATH']}", "EDGESEG_ROOT": str(tmp_path / "root")}
    completed = subprocess.run([JETSON / name, *words], env=env, capture_output=True, text=True, timeout=60)
    return completed.returncode, completed.stdout, completed.stderr


@pytest.mark.parametrize("release", RELEASES)
def test_each_jetpack_and_its_build_mode(tmp_path: Path, release: str) -> None:
    board(tmp_path, release)
    code, out, err = script("check.sh", tmp_path)
    jetpack, mode = RELEASES[release]
    assert code == 0, out + err
    assert f"JetPack {jetpack}," in out
    assert ("edgeseg itself" in out) == (mode == "native") and ("runner.py" in out) == (mode == "runner")


def test_missing_packages_are_listed_with_the_command_that_installs_them(tmp_path: Path) -> None:
    board(tmp_path, "# R32 (release), REVISION: 7.4, GCID: 1", "pmode:0001")
    code, out, _ = script("check.sh", tmp_path, packages="unknown ok not-installed")
    assert code == 1
    for words in ("sudo apt install python3-libnvinfer", "sudo apt install libnvinfer-bin", "power.sh max"):
        assert words in out


@pytest.mark.parametrize(
    ("release", "message"),
    [("", "this is not a Jetson"), ("# R99 (release), REVISION: 1.0", "L4T 99.1 is not known here")],
)
def test_unknown_boards_are_reported(tmp_path: Path, release: str, message: str) -> None:
    if release:
        board(tmp_path, release)
    code, _, err = script("check.sh", tmp_path)
    assert code == 2 and message in err


def test_a_dry_run_shows_the_commands_and_runs_none(tmp_path: Path) -> None:
    board(tmp_path, "# R36 (release), REVISION: 4.3, GCID: 1")
    code, out, err = script("setup.sh", tmp_path, "--dry-run", "--service")
    assert code == 0, err
    assert "+ python3 -m venv --system-site-packages /opt/edgeseg" in out
    assert "[tensorrt,camera,metrics]" in out and "edgeseg.service.d/jetson.conf" in out
    assert not Path("/opt/edgeseg").exists()
    board(tmp_path, "# R35 (release), REVISION: 5.0, GCID: 1")
    _, out, _ = script("setup.sh", tmp_path, "--dry-run")
    assert "venv" not in out and "BUNDLE/build.sh" in out
    assert script("setup.sh", tmp_path, "--force")[0] == 2


def test_power_modes(tmp_path: Path) -> None:
    board(tmp_path, "# R36 (release), REVISION: 4.3, GCID: 1")
    assert script("power.sh", tmp_path, "list")[1].splitlines() == ["0  MAXN", "2  15W"]
    assert script("power.sh", tmp_path, "max")[1].splitlines() == ["nvpmodel -m 0", "jetson_clocks"]
    assert script("power.sh", tmp_path, "set", "2")[1].splitlines() == ["nvpmodel -m 2"]
    for words in ((), ("set",), ("set", "2;reboot"), ("off",)):
        assert script("power.sh", tmp_path, *words)[0] == 2


def test_hadolint_accepts_the_container_file() -> None:
    completed = subprocess.run([BIN / "hadolint", ROOT / "Dockerfile.jetson"], capture_output=True, text=True)
    assert completed.returncode == 0, completed.stdout


def test_the_container_is_pinned_and_small_and_not_root() -> None:
    text = (ROOT / "Dockerfile.jetson").read_text()
    bases = re.findall(r"^FROM (\S+:\S+) AS jetpack-(\S+)$", text, re.M)
    assert [jetpack for _, jetpack in bases] == ["6.0", "6.1", "7.0", "cpu"]
    assert all(not base.endswith(":latest") for base, _ in bases)
    last = text[text.rindex("\nFROM ") :]
    assert "USER 10001" in last and "gcc" not in last and "COPY --from=build" in last
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M)
    assert all((ROOT / name).exists() for line in copied for name in line.split())


@pytest.mark.slow
def test_the_python_layer_of_the_container_installs_and_runs_here(tmp_path: Path, bundle_of) -> None:  # type: ignore[no-untyped-def]
    """The build stage's own command, with the cpu base's extras, into a folder of its own."""
    result = re.search(r"(?m)^RUN (python3 -m venv .*(?:\n .*)*)", (ROOT / "Dockerfile.jetson").read_text())
    assert result
    command = result[1].replace("\\\n", " ").replace("/opt/edgeseg", str(tmp_path / "venv"))
    command = command.replace("--system-site-packages", "").replace("python3 -m venv", f"{sys.executable} -m venv")
    subprocess.run(["sh", "-eu", "-c", command], cwd=ROOT, env={**os.environ, "JETPACK": "cpu"}, check=True)
    edgeseg = tmp_path / "venv" / "bin" / "edgeseg"
    bundle = bundle_of("onnxruntime-cpu", "fp32")
    completed = subprocess.run([edgeseg, "verify", bundle], cwd=tmp_path, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    assert subprocess.run([edgeseg, "doctor"], cwd=tmp_path, capture_output=True).returncode == 0
