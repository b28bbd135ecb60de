"""Leaks: calibration frames that also belong to an evaluation set.

Identical files are recognized by their sha256, identical pictures by a perceptual hash: the difference hash of Krawetz
(2013), 16x16 bits of "brighter than the left neighbor" and as many of "brighter than the upper one". The same picture
as a poor JPEG, at another size, brighter, noisier or cropped by 1 % differs in up to about 46 of the 512 bits; on
CamVid the nearest frames of two splits differ in 135, on rendered streets in 151, in thick fog in 61. Two frames of a
camera that does not move count as the same picture, too. Frames that are nearly all black agree in most bits whatever
they show, so their small gray images must correlate as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.images import Image

SIDE = 16
BITS = 2 * SIDE * SIDE
MAX_DIFFERENT_BITS = 48  # between perceptual hashes of the same picture
MIN_CORRELATION = 0.9  # of gray images of the same picture
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class PerceptualHash:
    """`bits` [512] as -1 and 1, `gray` [289] of mean 0 and norm 1 (all 0 for a frame of one color)."""

    bits: Floats
    gray: Floats


@dataclass(frozen=True)
class Match:
    """A frame and the most similar one of an evaluation set. `different_bits`: 0 for identical files."""

    frame: Path
    other: Path
    different_bits: int

    @property
    def is_leak(self) -> bool:
        """Whether both show the same picture."""
        return self.different_bits <= MAX_DIFFERENT_BITS


def perceptual_hash(frame: Image) -> PerceptualHash:
    """The perceptual hash of [H, W, 3] uint8 BGR."""
    small = cv2.resize(frame, (SIDE + 1, SIDE + 1), interpolation=cv2.INTER_AREA)
    gray = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.float32)
    brighter = np.stack([gray[:SIDE, 1:] > gray[:SIDE, :-1], gray[1:, :SIDE] > gray[:-1, :SIDE]])
    centered = gray.ravel() - gray.mean()
    return PerceptualHash(
        np.where(brighter.ravel(), np.float32(1), np.float32(-1)), centered / max(1e-6, np.linalg.norm(centered))
    )


class EvaluationSet:
    """Frames that a model is evaluated on, with the sha256 and the perceptual hash of each."""

    def __init__(
        self, name: str, files: tuple[Path, ...], digests: tuple[str, ...], hashes: tuple[PerceptualHash, ...]
    ):
        self.name, self.files = name, files
        self._by_digest = dict(zip(digests, files))
        self._bits = np.stack([h.bits for h in hashes])
        self._gray = np.stack([h.gray for h in hashes])

    def closest(self, file: Path, digest: str, picture: PerceptualHash) -> Match:
        """The frame of this set that is most similar to the given one, a leak or not."""
        if digest in self._by_digest:
            return Match(file, self._by_digest[digest], 0)
        different = (BITS - self._bits @ picture.bits) / 2
        uncorrelated = self._gray @ picture.gray < MIN_CORRELATION
        different[(different <= MAX_DIFFERENT_BITS) & uncorrelated] = MAX_DIFFERENT_BITS + 1
        index = int(different.argmin())
        return Match(file, self.files[index], max(1, round(float(different[index]))))
