"""Is this picture also among those to judge on? Equal files by their hash, equal pictures by a small print of them.

The print is a difference hash (Krawetz 2013): 16x16 signs of "brighter than the left neighbor" and as many of "than
the upper one". The same picture as a poor JPEG, at another size, brighter, noisier or cropped by 1 % differs in up to
about 46 of the 512 signs; on CamVid the nearest frames of two splits differ in 135, on rendered streets in 151, in
thick fog in 61. Two frames of a standing camera are the same picture, too. Frames that are nearly all black agree in
most signs whatever they show, so their small gray pictures must correlate as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.images import Image

SIDE = 16
SIGNS = 2 * SIDE * SIDE
SAME = 48  # signs in which prints of the same picture may differ
ALIKE = 0.9  # least correlation of their gray pictures
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Print:
    """`signs` [512] of -1 and 1, `gray` [289] of mean 0 and norm 1 (all 0 for a frame of one color)."""

    signs: Floats
    gray: Floats


@dataclass(frozen=True)
class Leak:
    """A frame and the one of the other set that shows the same; `signs` differ, 0 where the files are equal."""

    frame: Path
    other: Path
    signs: int


def take(frame: Image) -> Print:
    """The print of [H, W, 3] uint8 BGR."""
    small = cv2.resize(frame, (SIDE + 1, SIDE + 1), interpolation=cv2.INTER_AREA)
    gray = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.float32)
    brighter = np.stack([gray[:SIDE, 1:] > gray[:SIDE, :-1], gray[1:, :SIDE] > gray[:-1, :SIDE]])
    centered = gray.ravel() - gray.mean()
    return Print(
        np.where(brighter.ravel(), np.float32(1), np.float32(-1)), centered / max(1e-6, np.linalg.norm(centered))
    )


class Judged:
    """The frames of one set that somebody is judged on."""

    def __init__(self, name: str, files: tuple[Path, ...], hashes: tuple[str, ...], prints: tuple[Print, ...]):
        self.name, self.files = name, files
        self._by_hash = dict(zip(hashes, files))
        self._signs = np.stack([p.signs for p in prints])
        self._gray = np.stack([p.gray for p in prints])

    def find(self, file: Path, digest: str, of: Print) -> Leak:
        """The frame of this set that is most like the given one, a leak or not."""
        if digest in self._by_hash:
            return Leak(file, self._by_hash[digest], 0)
        differ = (SIGNS - self._signs @ of.signs) / 2
        differ[(differ <= SAME) & (self._gray @ of.gray < ALIKE)] = SAME + 1
        nearest = int(differ.argmin())
        return Leak(file, self.files[nearest], max(1, round(float(differ[nearest]))))
