"""The fingerprint: what a figure depends on besides the bundle. Figures of two fingerprints are not one ranking."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

from edgeseg import __version__, backends
from edgeseg.cpus import usable_cpus
from edgeseg.results.common import Machine

PACKAGES = ("nncf", "numpy", "opencv-python-headless")  # besides those of the backends


def fingerprint(root: Path = Path("/")) -> Machine:
    """The machine under `root`."""
    versions = {"edgeseg": __version__}
    for package in (*PACKAGES, *backends.packages()):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    machine = Machine(
        id="",
        cpu=_cpu_name(root),
        cores=usable_cpus(root),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions=versions,
        memory_gb=_memory_gb(root),
        board=read(root / "proc/device-tree/model"),
        jetpack=read(root / "etc/nv_tegra_release").split("\n")[0],
        power_mode=read(root / "var/lib/nvpmodel/status"),
        governor=read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    )
    digest = hashlib.sha256(json.dumps(asdict(machine), sort_keys=True).encode()).hexdigest()
    return replace(machine, id=digest[:12])


def read(path: Path) -> str:
    """A small system file as text; "" where there is none."""
    try:
        return path.read_text(errors="replace").strip("\x00\n ")
    except OSError:
        return ""


def _cpu_name(root: Path) -> str:
    for line in read(root / "proc/cpuinfo").splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gb(root: Path) -> float | None:
    match = re.search(r"MemTotal:\s+(\d+) kB", read(root / "proc/meminfo"))
    return round(int(match[1]) / (1 << 20), 1) if match else None
