"""How many CPUs this process may use, which in containers and under `taskset` is less than the machine has."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path, PurePosixPath

DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8")  # as Linux names them


def usable_cpus(root: Path = Path("/")) -> int:
    """The CPUs of this process's affinity, cut to the CPU time that its control groups grant; at least 1.

    A quota of one and a half CPUs counts as two. `root`: where /proc and /sys are.
    """
    # Only Linux has an affinity.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas(root))]))


def limited() -> bool:
    """Whether this process may use fewer CPUs than the machine has."""
    return usable_cpus() < (os.cpu_count() or 1)


def dot_products(root: Path = Path("/")) -> list[str] | None:
    """The instructions for integer dot products that an x86 CPU has; None where this is no x86 CPU."""
    flags = re.search(r"^flags\s*:\s*(.+)$", _text(root / "proc/cpuinfo"), re.M)
    return None if flags is None else [name for name in DOT_PRODUCTS if name in flags[1].split()]


def adds_in_16_bits(root: Path = Path("/")) -> bool:
    """Whether this is an x86 CPU without integer dot products: products of INT8 are added in 16 bits, and saturate."""
    return dot_products(root) == []


def has_bf16(root: Path = Path("/")) -> bool:
    """Whether this is a CPU that computes in bfloat16."""
    text = _text(root / "proc/cpuinfo")
    return re.search(r"^(?:flags|Features)\s*:.*\b(?:avx512_bf16|amx_bf16|bf16)\b", text, re.M) is not None


def _quotas(root: Path) -> list[float]:
    """The quotas, in CPUs, of this process's control group and of every group above it (cgroups(7), v1 and v2)."""
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Inside a container the group's name may be the host's, while the container's own group is the mount itself.
        for folder in (PurePosixPath(group), *PurePosixPath(group).parents):
            for mount in dict.fromkeys(("", controllers, "cpu")):
                found.append(_quota(root / "sys/fs/cgroup" / mount / str(folder).lstrip("/")))
    return [quota for quota in found if quota]


def _quota(folder: Path) -> float | None:
    """The quota of one control group: `cpu.max` (v2) or `cpu.cfs_quota_us` over `cpu.cfs_period_us` (v1)."""
    text = _text(folder / "cpu.max") or f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"
    numbers = re.fullmatch(r"(\d+)\s+([1-9]\d*)", text.strip())  # no quota is `max` in v2, -1 in v1
    return int(numbers[1]) / int(numbers[2]) if numbers else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
