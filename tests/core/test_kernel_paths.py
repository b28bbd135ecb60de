"""The kernels as they are compiled for each instruction set, not only for the best that this CPU has."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeseg import mask
from edgeseg.fit import Box
from edgeseg.motion import warp
from edgeseg.motion.field import Grid

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"sse2": "sse2", "avx2": "avx2", "avx512": "avx512f"}


@cache
def flags() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.read_text() if cpuinfo.exists() else ""


@pytest.fixture(scope="module", params=NAMES)
def kernels(request, tmp_path_factory) -> dict[str, Any]:
    """_mask and _motion for one instruction set."""
    if not shutil.which("cc") or "x86_64" not in sysconfig.get_platform():
        pytest.skip("needs a C compiler on x86-64")
    if NAMES[request.param] not in flags():
        pytest.skip(f"this CPU has no {request.param}")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        from kernels import built
    folder = tmp_path_factory.mktemp(request.param)
    return {name: built(name, NAMES[request.param], folder) for name in ("_mask", "_motion")}


def test_class_maps_are_equal(kernels, monkeypatch):
    monkeypatch.setattr(mask, "_mask", kernels["_mask"])
    random = np.random.default_rng(0)
    for classes, h, w in ((2, 9, 33), (8, 28, 48), (19, 17, 31), (150, 6, 70)):
        logits = random.normal(size=(classes, h, w)).astype(np.float32)
        logits = np.round(logits * 8) / 8  # so that many tie
        for mode in ("half_pixel", "align_corners"):
            np.testing.assert_array_equal(
                mask.class_map(logits, 4 * h + 1, 4 * w + 3, mode), mask.dense(logits, 4 * h + 1, 4 * w + 3, mode)
            )
        np.testing.assert_array_equal(mask.class_map(logits, h, w, "none"), logits.argmax(0))


def test_moved_class_maps_are_equal(kernels, monkeypatch):
    random = np.random.default_rng(1)
    before = random.integers(0, 8, (93, 130), np.uint8)
    seen, grid = Box(0, 0, 130, 93), Grid(93, 130)
    field = random.normal(0, 6, (*grid.shape, 2)).astype(np.float32)
    monkeypatch.setattr(warp, "_motion", None)
    expected = warp.frame_map(before, field, grid, seen)
    monkeypatch.setattr(warp, "_motion", kernels["_motion"])
    np.testing.assert_array_equal(warp.frame_map(before, field, grid, seen), expected)


def test_the_kernel_that_was_installed_takes_the_best_path():
    """Compiled once for each: the loader chooses, so all three must be in the file."""
    if sys.platform != "linux" or "x86_64" not in sysconfig.get_platform() or not mask.compiled():
        pytest.skip("needs the C kernel on Linux, x86-64")
    from edgeseg import _mask

    symbols = Path(_mask.__file__).read_bytes()
    assert all(f"argmax_chunk.{name}".encode() in symbols for name in ("avx512f", "avx2", "default"))
