"""Run lengths as COCO stores masks (cocodataset/cocoapi, maskApi): column-major, zeros first, as a list of numbers or
as text. Decoded here, since pycocotools trusts them with its memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeseg.images import Image


def decode(counts: Any, height: int, width: int) -> Image:
    """The mask [height, width] uint8 of 0 and 1; ValueError for run lengths that are not its own."""
    runs = _runs(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and 0 <= run <= height * width for run in runs):
        raise ValueError("its run lengths are not whole numbers within the mask")
    if sum(runs) != height * width:
        raise ValueError(f"its run lengths cover {sum(runs)} pixels, not {height * width}")
    values = np.arange(len(runs)).astype(np.uint8) & 1
    return np.repeat(values, runs).reshape(width, height).T


def _runs(text: str) -> list[int]:
    """Characters of 5 bits and a sign to continue; from the fourth number on, the difference to the last but one."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{character!r} is no character of run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            if shift > 35:
                raise ValueError("a run length is too large")
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise ValueError("its run lengths end in the middle of a number")
    return runs
