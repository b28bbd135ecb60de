"""Leaks: calibration frames that also belong to an evaluation set.

Identical files are recognized by their sha256, identical pictures by a perceptual hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeseg.data.perceptual_hash import BITS, MAX_DIFFERENT_BITS, MIN_CORRELATION, PerceptualHash


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
