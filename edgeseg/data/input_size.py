"""The network's input for frames of given sizes: about their own size, within a number of pixels."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, product

STRIDE, LARGEST = 32, 4096  # sides are multiples of the one, at most the other
STRETCHED = 1.15  # by which the proportions of a frame may change before that counts
FEW = 0.02  # share of frames whose proportions may


@dataclass(frozen=True)
class InputSize:
    """`fit`: stretch, or letterbox where the frames' proportions vary. `frame`: (width, height) of the median."""

    height: int
    width: int
    fit: str
    frame: tuple[int, int]


def input_size(sizes: Mapping[tuple[int, int], int], most_pixels: int) -> InputSize:
    """`sizes`: frames of each (width, height). Of the multiples of 32 around the median frame, reduced to `most_pixels`
    where it is larger, the one whose proportions and area are closest."""
    area = _median({size: (size[0] * size[1], n) for size, n in sizes.items()})
    ratio = _median({size: (size[0] / size[1], n) for size, n in sizes.items()})
    goal = min(area, most_pixels)
    width, height = _closest(ratio, goal, most_pixels)
    changed = sum(n for (w, h), n in sizes.items() if _factor(w / h, width / height) > STRETCHED)
    frame = (round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio)))
    return InputSize(height, width, "letterbox" if changed > FEW * sum(sizes.values()) else "stretch", frame)


def _median(values: Mapping[tuple[int, int], tuple[float, int]]) -> float:
    """The lower median of values that count so many times each."""
    ordered = sorted(values.values())
    counts = list(accumulate(count for _, count in ordered))
    return ordered[bisect_left(counts, counts[-1] / 2)][0]


def _closest(ratio: float, area: float, most: int) -> tuple[int, int]:
    """(width, height): multiples of STRIDE near the rectangle of that ratio and area."""
    exact = math.sqrt(area * ratio), math.sqrt(area / ratio)
    sides = [[_side(math.floor(side / STRIDE) + k) for k in (-1, 0, 1, 2)] for side in exact]
    fitting = [(w, h) for w, h in product(*sides) if w * h <= max(most, STRIDE * STRIDE)] or [(STRIDE, STRIDE)]
    return min(fitting, key=lambda s: math.log(_factor(s[0] / s[1], ratio)) + math.log(_factor(s[0] * s[1], area)) / 2)


def _side(steps: int) -> int:
    return min(LARGEST, max(1, steps) * STRIDE)


def _factor(a: float, b: float) -> float:
    return max(a / b, b / a)
