"""The number of usable CPUs: affinity and control groups, in a real process and in real files of both versions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeseg import cpus

FIRST = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
COUNT = [sys.executable, "-c", "from edgeseg.cpus import usable_cpus; print(usable_cpus())"]


def machine(root: Path, groups: str, **files: str) -> Path:
    """A root with /proc/self/cgroup and files of /sys/fs/cgroup; `__` in a name stands for `/`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(autouse=True)
def sixteen_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu_dot_max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu_dot_max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu_dot_max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu_dot_max": "max 100000\n"}, 16),
        ("0::/a/b\n", {"a__cpu_dot_max": "300000 100000\n", "a__b__cpu_dot_max": "max 100000\n"}, 3),
        ("0::/a/b\n", {"a__cpu_dot_max": "800000 100000\n", "a__b__cpu_dot_max": "400000 100000\n"}, 4),
        (
            "4:cpu,cpuacct:/docker/x\n2:memory:/\n",
            {"cpu,cpuacct__cpu_dot_cfs_quota_us": "250000\n", "cpu,cpuacct__cpu_dot_cfs_period_us": "100000\n"},
            3,
        ),
        ("3:cpu:/\n", {"cpu__cpu_dot_cfs_quota_us": "-1\n", "cpu__cpu_dot_cfs_period_us": "100000\n"}, 16),
        ("3:cpuset:/\n", {"cpuset__cpu_dot_cfs_quota_us": "1\n", "cpuset__cpu_dot_cfs_period_us": "1\n"}, 16),
        ("", {}, 16),
    ],
)
def test_the_quota_of_control_groups(tmp_path: Path, groups: str, files: dict[str, str], expected: int) -> None:
    assert cpus.usable_cpus(machine(tmp_path, groups, **files)) == expected


def test_without_proc_the_affinity_counts(tmp_path: Path) -> None:
    assert cpus.usable_cpus(tmp_path) == 16


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux has CPU affinity")
def test_one_cpu_under_taskset() -> None:
    pin = f"import os; os.sched_setaffinity(0, {{{FIRST}}}); "
    done = subprocess.run([*COUNT[:2], pin + COUNT[2]], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("flags", "saturates"),
    [
        ("flags\t\t: fpu sse2 avx2 avx512f avx512bw", True),
        ("flags\t\t: fpu avx2 avx512_vnni", False),
        ("flags\t\t: fpu avx2 avx_vnni", False),
        ("Features\t: fp asimd asimddp", False),  # Arm
        ("", False),
    ],
)
def test_cpus_that_add_products_of_int8_in_16_bits(tmp_path: Path, flags: str, saturates: bool) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    assert cpus.adds_in_16_bits(tmp_path) is saturates
