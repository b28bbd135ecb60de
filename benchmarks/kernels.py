"""The C kernels, compiled for one instruction set at a time, in turns on one core.

    python benchmarks/kernels.py [--rounds 31] [--json FILE|-]

edgeseg compiles the hot loops for SSE2, AVX2 and AVX-512 and lets the loader choose; this shows what each is worth on
this CPU, beside numpy. Milliseconds are medians; `speedup` is numpy's median over each. Needs a C compiler and x86-64.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from masks import smooth_logits

from edgeseg import mask
from edgeseg.cli.common import emit
from edgeseg.fit import Box
from edgeseg.machine import fingerprint
from edgeseg.motion import warp
from edgeseg.motion.field import Grid

SETS = {"SSE2": "sse2", "AVX2": "avx2", "AVX-512": "avx512f"}
SOURCES = Path(__file__).resolve().parent.parent / "edgeseg"


def built(kernel: str, instructions: str, folder: Path) -> ModuleType:
    """edgeseg/`kernel`.c, its hot loops compiled for one of SETS' values."""
    path = folder / f"{kernel}-{instructions}.so"
    fast = f'-DFAST=__attribute__((target("{instructions}")))'
    words = ["cc", "-O3", "-ffp-contract=off", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}", fast]
    subprocess.run([*words, str(SOURCES / f"{kernel}.c"), "-lm", "-o", str(path)], check=True)
    loader = ExtensionFileLoader(kernel, str(path))
    spec = spec_from_loader(kernel, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def cases() -> dict[str, Callable[[], Any]]:
    """What edgeseg asks of its kernels, by name; run with whatever stands in mask._mask and warp._motion."""
    street, wide = smooth_logits(8, 56, 96, 0), smooth_logits(19, 90, 160, 0)
    full = np.random.default_rng(0).normal(size=(19, 512, 512)).astype(np.float32)
    random = np.random.default_rng(1)
    before, grid = random.integers(0, 19, (720, 1280), np.uint8), Grid(720, 1280)
    field, seen = random.normal(0, 4, (*grid.shape, 2)).astype(np.float32), Box(0, 0, 1280, 720)
    return {
        "class map, 8 classes, 96x56 -> 384x224": lambda: mask.class_map(street, 224, 384, "half_pixel"),
        "class map, 19 classes, 160x90 -> 1280x720": lambda: mask.class_map(wide, 720, 1280, "half_pixel"),
        "the same with the margin": lambda: mask.class_map_margin(wide, 720, 1280, "half_pixel"),
        "argmax of 19 classes, 512x512": lambda: mask.class_map(full, 512, 512, "none"),
        "class map moved, 1280x720": lambda: warp.frame_map(before, field, grid, seen),
    }


def _one(result: Any) -> Any:
    """One array of a class map, or of a class map and its margin."""
    return np.stack(result) if isinstance(result, tuple) else result


def use(mask_kernel: Any, motion_kernel: Any) -> None:
    """Let edgeseg work with these; None: with numpy."""
    vars(mask)["_mask"], vars(warp)["_motion"] = mask_kernel, motion_kernel


def measure(name: str, case: Callable[[], Any], kernels: dict[str, tuple[Any, Any]], rounds: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {label: [] for label in kernels}
    results = {}
    for _ in range(rounds):
        for label, pair in kernels.items():
            use(*pair)
            begin = time.perf_counter()
            results[label] = case()
            times[label].append(1e3 * (time.perf_counter() - begin))
    same = {label: np.array_equal(_one(found), _one(results["numpy"])) for label, found in results.items()}
    medians = {label: statistics.median(row) for label, row in times.items()}
    return {
        "case": name,
        "ms": {label: round(ms, 3) for label, ms in medians.items()},
        "speedup": {label: round(medians["numpy"] / ms, 1) for label, ms in medians.items()},
        "equals_numpy": same,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="FILE or - for standard output")
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    flags = Path("/proc/cpuinfo").read_text()
    kernels: dict[str, tuple[Any, Any]] = {
        "numpy": (None, None),
        "as installed": (vars(mask)["_mask"], vars(warp)["_motion"]),
    }
    with tempfile.TemporaryDirectory() as folder:
        for label, instructions in SETS.items():
            if instructions in flags:
                kernels[label] = (
                    built("_mask", instructions, Path(folder)),
                    built("_motion", instructions, Path(folder)),
                )
        rows = [measure(name, case, kernels, options.rounds) for name, case in cases().items()]
    for row in rows:
        print(row, file=sys.stderr)
    emit({"kind": "kernel benchmark", "machine": asdict(fingerprint()), "cases": rows}, options.json)


if __name__ == "__main__":
    main()
