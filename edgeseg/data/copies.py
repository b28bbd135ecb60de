"""Copies: pairs of frames that show the same picture, in another file, size, brightness, mirrored or cropped.

Whole pictures are compared by perceptual hashes, in blocks. Cropped ones have their local features (ORB, Rublee et al.
2011) in common: frames that share some, found through a table of parts of their descriptors, are laid over each other.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.local_features import LocalFeatures, local_features, shared_features, transform
from edgeseg.data.perceptual_hash import BITS, MAX_DIFFERENT_BITS, MIN_CORRELATION, SIDE, perceptual_hashes
from edgeseg.files import require_file
from edgeseg.images import Image, decode_image

BLOCK = 1024  # frames compared at a time
MIN_OVERLAP = 0.85  # correlation of the details of two frames, one laid over the other
IDENTICAL, ALTERED, MIRRORED, CROPPED = "identical file", "altered copy", "mirrored copy", "cropped copy"


@dataclass(frozen=True)
class Pair:
    """Frames `first` < `second`, by number, and how they are the same picture. `score`: 0 to 1, how surely."""

    first: int
    second: int
    how: str
    score: float


class Index:
    """What is kept of each frame: about 5 kB."""

    def __init__(self) -> None:
        self.digests: list[bytes] = []
        self.bits: list[NDArray[np.uint8]] = []
        self.mirrored: list[NDArray[np.uint8]] = []
        self.gray: list[NDArray[np.float16]] = []
        self.features: list[LocalFeatures] = []

    def add(self, data: bytes, frame: Image) -> None:
        """The next frame: its file's content and its pixels [H, W, 3] uint8 BGR, which may be reduced."""
        self.add_whole(data, frame)
        self.features.append(local_features(frame))

    def add_whole(self, data: bytes, frame: Image) -> None:
        """The same for whole_pairs alone, which need no local features."""
        hashed, mirrored = perceptual_hashes(frame)
        self.digests.append(hashlib.sha256(data).digest())
        self.bits.append(np.packbits(hashed.bits > 0))
        self.mirrored.append(np.packbits(mirrored.bits > 0))
        self.gray.append(hashed.gray.astype(np.float16))

    def __len__(self) -> int:
        return len(self.digests)

    def similarity(self, first: int, second: int) -> tuple[int, float]:
        """The different bits of two frames' hashes, and the correlation of their small gray images."""
        different = int(np.unpackbits(self.bits[first] ^ self.bits[second]).sum())
        return different, float(self.gray[first].astype(np.float32) @ self.gray[second].astype(np.float32))

    def pairs(
        self,
        splits: Sequence[str],
        skip: Callable[[int, int], bool],
        overlap: Callable[[int, int, NDArray[np.float64]], float],
    ) -> list[Pair]:
        """Every pair of frames with the same picture, by first and second.

        `splits`: of each frame. `skip(i, j)`: pairs of no interest. `overlap(i, j, transform)`: the correlation of
        frame i, transformed onto j, with j: reads both.
        """
        found = self.whole_pairs(skip)
        for first, second in shared_features(self.features, splits, lambda i, j: (i, j) in found or skip(i, j)):
            matrix = transform(self.features[first], self.features[second])
            if matrix is None:
                continue
            score = overlap(first, second, matrix)
            if score >= MIN_OVERLAP:
                found[first, second] = Pair(first, second, CROPPED if _scales(matrix) else ALTERED, score)
        return [found[key] for key in sorted(found)]

    def whole_pairs(self, skip: Callable[[int, int], bool] = lambda i, j: False) -> dict[tuple[int, int], Pair]:
        """The pairs by first and second whose whole pictures are the same, mirrored or not; equal files also where
        `skip` says that a pair is of no interest."""
        found = {(p.first, p.second): p for p in self._identical()}
        for pair in self._alike():
            key = (pair.first, pair.second)
            if key not in found and not skip(*key):
                found[key] = pair
        return found

    def _identical(self) -> Iterator[Pair]:
        by_digest: dict[bytes, list[int]] = defaultdict(list)
        for i, digest in enumerate(self.digests):
            by_digest[digest].append(i)
        for same in by_digest.values():
            yield from (Pair(same[0], i, IDENTICAL, 1.0) for i in same[1:])

    def _alike(self) -> Iterator[Pair]:
        """Pairs whose hashes nearly agree, and whose gray images correlate; directly before mirrored."""
        if not self.digests:
            return
        packed, mirrored, gray = np.stack(self.bits), np.stack(self.mirrored), np.stack(self.gray)
        sides = SIDE + 1
        flipped = gray.reshape(-1, sides, sides)[:, :, ::-1].reshape(len(gray), -1)
        for how, others, grays in ((ALTERED, packed, gray), (MIRRORED, mirrored, flipped)):
            for i, j in _near(packed, others):
                correlation = float(gray[i].astype(np.float32) @ grays[j].astype(np.float32))
                if correlation >= MIN_CORRELATION:
                    yield Pair(i, j, how, correlation)


def near_copies(
    files: Sequence[Path], progress: Callable[[int, int], None] = lambda done, total: None
) -> list[tuple[int, int]]:
    """(i, j), i < j, for all image files that show the same whole picture, mirrored ones too."""
    index = Index()
    for done, file in enumerate(files, 1):
        data = require_file(file, "Image").read_bytes()
        index.add_whole(data, decode_image(data, file))
        progress(done, len(files))
    return sorted(index.whole_pairs())


def _near(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """i < j whose hashes, left[i] and right[j], [N, 64] packed, differ in few bits."""
    for start in range(0, len(left), BLOCK):
        rows = _signs(left[start : start + BLOCK])
        for column in range(start, len(right), BLOCK):
            near = rows @ _signs(right[column : column + BLOCK]).T >= BITS - 2 * MAX_DIFFERENT_BITS
            for i, j in np.argwhere(near).tolist():
                if start + i < column + j:
                    yield start + i, column + j


def _signs(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1


def _scales(matrix: NDArray[np.float64]) -> bool:
    """Whether a transform between small frames is a crop, and not the whole picture on the whole picture."""
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    return abs(scale - 1) > 0.02 or float(np.abs(matrix[:, 2]).max()) > 4


def clusters(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Numbers that pairs connect, each cluster and all of them in order."""
    parent: dict[int, int] = {}

    def root(i: int) -> int:
        while parent.setdefault(i, i) != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in pairs:
        first, second = sorted((root(a), root(b)))
        parent[second] = first
    out: dict[int, list[int]] = defaultdict(list)
    for i in sorted(parent):
        out[root(i)].append(i)
    return [out[i] for i in sorted(out)]
