"""Copies: pairs of frames that show the same picture, in another file, size, brightness, mirrored or cropped.

Whole pictures are compared by perceptual hashes, in blocks. Cropped ones have their local features (ORB, Rublee et al.
2011) in common: frames that share some, found through a table of parts of their descriptors, are laid over each other.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.cpus import usable_cpus
from edgeseg.data.dataset import Dataset
from edgeseg.data.frame_map import each_frame
from edgeseg.data.local_features import PARTS, likely_pairs, overlap, transform, unpacked
from edgeseg.data.perceptual_hash import BITS, MAX_DIFFERENT_BITS, MIN_CORRELATION, SIDE, perceptual_hashes
from edgeseg.data.rows import Rows
from edgeseg.errors import EdgesegError
from edgeseg.images import Image, decode_image

BLOCK = 1024  # frames compared at a time
MIN_OVERLAP = 0.85  # correlation of the details of two frames, one laid over the other
WHOLE = np.dtype(  # what is kept of a picture as a whole
    [
        ("digest", np.uint8, 32),
        ("bits", np.uint8, BITS // 8),
        ("mirrored", np.uint8, BITS // 8),
        ("gray", np.float16, (SIDE + 1) ** 2),
    ]
)
Look = Callable[[int], Image]
IDENTICAL, ALTERED, MIRRORED, CROPPED = "identical file", "altered copy", "mirrored copy", "cropped copy"


@dataclass(frozen=True)
class Pair:
    """Frames `first` < `second`, by number, and how they are the same picture. `score`: 0 to 1, how surely."""

    first: int
    second: int
    how: str
    score: float


class Index:
    """What is kept of each frame, 4 kB, in temporary files."""

    def __init__(self) -> None:
        self._whole, self._parts = Rows(WHOLE), Rows(PARTS)

    def add(self, whole: NDArray[Any], parts: NDArray[Any] | None = None) -> None:
        """The next frame: what `whole` and `parts` return of it; whole_pairs alone need no parts."""
        self._whole.append(whole)
        if parts is not None:
            self._parts.append(parts)

    def __len__(self) -> int:
        return len(self._whole)

    def similarities(self, pairs: Sequence[tuple[int, int]]) -> Iterator[tuple[int, float]]:
        """The different bits of two frames' hashes, and the correlation of their small gray images, of each pair."""
        rows = self._whole.array()
        bits, gray = rows["bits"], rows["gray"]
        for first, second in pairs:
            different = int(np.unpackbits(bits[first] ^ bits[second]).sum())
            yield different, float(gray[first].astype(np.float32) @ gray[second].astype(np.float32))

    def pairs(self, splits: Sequence[str], skip: Callable[[int, int], bool], look: Look, ray: str = "") -> list[Pair]:
        """Every pair of frames with the same picture, by first and second.

        `splits`: of each frame. `skip(i, j)`: pairs of no interest. `look(i)`: frame i, reduced. `ray`: see frame_map.
        """
        found = self.whole_pairs(skip)
        features = self._parts.array()
        likely = likely_pairs(features, splits, lambda i, j: (i, j) in found or skip(i, j))
        for pair in each_frame(_Overlap(features, look, likely), range(len(likely)), ray, usable_cpus()):
            if isinstance(pair, EdgesegError):
                raise pair
            if pair:
                found[pair.first, pair.second] = pair
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
        for i, digest in enumerate(self._whole.array()["digest"]):
            by_digest[digest.tobytes()].append(i)
        for same in by_digest.values():
            yield from (Pair(same[0], i, IDENTICAL, 1.0) for i in same[1:])

    def _alike(self) -> Iterator[Pair]:
        """Pairs whose hashes nearly agree, and whose gray images correlate; directly before mirrored."""
        if not len(self):
            return
        rows = self._whole.array()
        packed, mirrored, gray = rows["bits"], rows["mirrored"], rows["gray"]
        sides = SIDE + 1
        for how, others in ((ALTERED, packed), (MIRRORED, mirrored)):
            for i, j in _near(packed, others):
                other = gray[j] if how == ALTERED else gray[j].reshape(sides, sides)[:, ::-1].ravel()
                correlation = float(gray[i].astype(np.float32) @ other.astype(np.float32))
                if correlation >= MIN_CORRELATION:
                    yield Pair(i, j, how, correlation)


@dataclass(frozen=True)
class _Overlap:
    """Lays the frames of `pairs` [M, 2] over each other where their local features say so."""

    features: NDArray[Any]
    look: Look
    pairs: NDArray[np.int64]

    def __call__(self, number: int) -> Pair | EdgesegError | None:
        first, second = self.pairs[number].tolist()
        matrix = transform(unpacked(self.features[first]), unpacked(self.features[second]))
        if matrix is None:
            return None
        try:
            score = overlap(self.look(first), self.look(second), matrix)
        except EdgesegError as error:
            return error
        if score < MIN_OVERLAP:
            return None
        return Pair(first, second, CROPPED if _scales(matrix) else ALTERED, score)


def whole(data: bytes, frame: Image) -> NDArray[Any]:
    """A row of WHOLE: of a file's content and its pixels [H, W, 3] uint8 BGR, which may be reduced."""
    hashed, mirrored = perceptual_hashes(frame)
    row = np.zeros((), WHOLE)
    row["digest"] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
    row["bits"], row["mirrored"] = np.packbits(hashed.bits > 0), np.packbits(mirrored.bits > 0)
    row["gray"] = hashed.gray
    return row


def near_copies(
    frames: Sequence[tuple[Dataset, int]], progress: Callable[[int, int], None] = lambda done, total: None
) -> list[tuple[int, int]]:
    """(i, j), i < j, for all frames (a split and a number in it) that show the same whole picture, mirrored ones
    too."""
    index = Index()
    for done, row in enumerate(each_frame(_whole_of, frames, threads=usable_cpus()), 1):
        index.add(row)
        progress(done, len(frames))
    return sorted(index.whole_pairs())


def _whole_of(frame: tuple[Dataset, int]) -> NDArray[Any]:
    part, number = frame
    data = part.read("images", number)
    return whole(data, decode_image(data, part.images[number]))


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
