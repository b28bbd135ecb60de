"""Local features of frames (ORB, Rublee et al. 2011), which a part of a picture shares with the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.rows import Rows
from edgeseg.images import Image

KEPT = 96  # features of a frame
TABLES, KEY_BITS = 6, 18  # hash tables over random bits of the descriptors (Indyk and Motwani 1998)
BUCKET = 256  # entries of a table that more frames have in common say nothing
VOTES = 3  # features that a pair shares before it is looked at
CANDIDATES = 10  # of a frame in each split: copies of a camera that stands still must not crowd out the original
MOST_LOOKED_AT = 400
FARTHEST = 56  # bits between the descriptors of one feature
INLIERS = 8  # features that one transform must explain
SIZE_RANGE = (0.4, 2.5)  # scales of a crop
MIN_OVERLAP = 0.5  # of the smaller one
Bytes = NDArray[np.uint8]
BLOCK = 1024  # frames whose keys are computed at a time
CHOSEN_BITS = np.random.default_rng(0).permutation(256)[: TABLES * KEY_BITS].reshape(TABLES, KEY_BITS)
ENTRY_BITS, LAST_ENTRY = np.uint64(32), np.uint64((1 << 32) - 1)
PARTS = np.dtype([("descriptors", np.uint8, (KEPT, 32)), ("at", np.float16, (KEPT, 2)), ("count", np.int64)])
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class LocalFeatures:
    """`descriptors` [K, 32] uint8, `at` [K, 2] float16: x, y in pixels of the frame that was given."""

    descriptors: Bytes
    at: NDArray[np.float16]


def local_features(frame: Image) -> LocalFeatures:
    """The strongest features of [H, W, 3] uint8 BGR, spread over the frame."""
    gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    orb = cv2.ORB_create(nfeatures=4 * KEPT, scaleFactor=1.2, nlevels=6, edgeThreshold=16, fastThreshold=7)  # type: ignore[attr-defined]
    points, descriptors = orb.detectAndCompute(gray, None)
    if descriptors is None:
        return LocalFeatures(np.zeros((0, 32), np.uint8), np.zeros((0, 2), np.float16))
    strongest = np.argsort([-p.response for p in points], kind="stable")[:KEPT]
    return LocalFeatures(descriptors[strongest], np.array([points[i].pt for i in strongest], np.float16))


def packed(features: LocalFeatures) -> NDArray[Any]:
    """Features as a row of PARTS."""
    row, count = np.zeros((), PARTS), len(features.descriptors)
    row["count"], row["descriptors"][:count], row["at"][:count] = count, features.descriptors, features.at
    return row


def unpacked(row: NDArray[Any]) -> LocalFeatures:
    """The features in a row of PARTS."""
    return LocalFeatures(row["descriptors"][: row["count"]], row["at"][: row["count"]])


def likely_pairs(features: NDArray[Any], splits: Sequence[str], skip: Callable[[int, int], bool]) -> NDArray[np.int64]:
    """[M, 2]: pairs i < j of frames that share features, of each frame the likeliest in each split that `skip` does not
    refuse. `features` [N] of PARTS."""
    table, found = _table(features), Rows(np.int64)
    for i, row in enumerate(features):
        owners = _same_key(table, np.unique(_keys(row["descriptors"][None, : row["count"]]))) // KEPT
        others, votes = np.unique(owners[owners != i], return_counts=True)
        taken = Counter[str]()
        order = np.argsort(-votes, kind="stable")[:MOST_LOOKED_AT]
        for j in others[order[votes[order] >= VOTES]].tolist():
            first, second = min(i, j), max(i, j)
            if taken[splits[j]] < CANDIDATES and not skip(first, second):
                taken[splits[j]] += 1
                found.append(first * len(features) + second)
    return np.stack(np.divmod(np.unique(found.array()), max(1, len(features))), axis=1)


def _same_key(table: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The entries of the table that have one of the keys; keys that many have are left out."""
    low, high = (np.searchsorted(table, (wanted + np.uint64(more)) << ENTRY_BITS) for more in (0, 1))
    number = np.where(high - low <= BUCKET, high - low, 0)
    at = np.repeat(low - np.cumsum(number) + number, number) + np.arange(number.sum())
    return np.asarray(table[at] & LAST_ENTRY, np.int64)


def _table(features: NDArray[Any]) -> NDArray[np.uint64]:
    """All features' keys, each with the feature's number in its lower bits, in order."""
    rows = Rows(np.uint64)
    for start in range(0, len(features), BLOCK):
        block = features[start : start + BLOCK]
        number = np.uint64(start * KEPT) + np.arange(len(block) * KEPT, dtype=np.uint64).reshape(-1, KEPT)
        there = np.arange(KEPT) < block["count"][:, None]
        rows.append((_keys(block["descriptors"]) << ENTRY_BITS | number)[:, there])
    table = rows.array()
    table.sort()
    return table


def _keys(descriptors: Bytes) -> NDArray[np.uint64]:
    """[TABLES, N, K]: of descriptors [N, K, 32], the number of a table and some of their bits."""
    keys = np.empty((TABLES, *descriptors.shape[:2]), np.uint64)
    for number, chosen in enumerate(CHOSEN_BITS):
        bits = descriptors[..., chosen >> 3] >> (chosen & 7).astype(np.uint8) & 1
        keys[number] = (bits @ (1 << np.arange(KEY_BITS))) + (number << KEY_BITS)
    return keys


def transform(first: LocalFeatures, second: LocalFeatures) -> Matrix | None:
    """[2, 3]: turns, scales and shifts places in the first frame onto the second; None where they do not agree."""
    if min(len(first.descriptors), len(second.descriptors)) < INLIERS:
        return None
    a, b = matches(first.descriptors, second.descriptors)
    if len(a) < INLIERS:
        return None
    matrix, inliers = cv2.estimateAffinePartial2D(
        first.at[a].astype(np.float32), second.at[b].astype(np.float32), ransacReprojThreshold=3.0, maxIters=500
    )
    if matrix is None or int(inliers.sum()) < INLIERS:
        return None
    scale, turned = float(np.hypot(matrix[0, 0], matrix[1, 0])), abs(float(np.arctan2(matrix[1, 0], matrix[0, 0])))
    return np.asarray(matrix, np.float64) if SIZE_RANGE[0] <= scale <= SIZE_RANGE[1] and turned < 0.1 else None


def matches(first: Bytes, second: Bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of two sets of descriptors [K, 32], [L, 32] that are each other's nearest, and near; in the order of
    `first`.

    Each row of `second` chooses the nearest of `first`, which takes the nearest of those that chose it, as OpenCV's
    BFMatcher does; this is faster.
    """
    one, other = (np.ascontiguousarray(d).view(np.uint64) for d in (first, second))
    distance = np.zeros((len(one), len(other)), np.uint16)
    for word in range(one.shape[1]):
        distance += ones(one[:, None, word] ^ other[None, :, word])
    chosen = distance.argmin(0)
    nearest = distance[chosen, np.arange(len(other))]
    order = np.argsort(nearest, kind="stable")
    order = order[nearest[order] <= FARTHEST]
    a, at = np.unique(chosen[order], return_index=True)
    return a, order[at]


def ones(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """How many bits of each word are 1."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(words)
    return np.asarray(np.unpackbits(words[..., None].view(np.uint8), axis=-1).sum(-1), np.uint8)  # numpy before 2


def overlap(first: Image, second: Image, matrix: Matrix) -> float:
    """The correlation of the details of two frames [h, w, 3], the first laid over the second; 0 where hardly any of it
    is covered."""
    height, width = second.shape[:2]
    one = cv2.warpAffine(_details(first), matrix, (width, height))
    inside = cv2.warpAffine(np.ones(first.shape[:2], np.float32), matrix, (width, height)) > 0.99
    inside = cv2.erode(inside.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    size = first.shape[0] * first.shape[1] * abs(float(np.linalg.det(matrix[:, :2])))
    covered = inside.sum() / max(1.0, min(float(inside.size), size))
    if covered < MIN_OVERLAP:
        return 0.0
    a, b = one[inside], _details(second)[inside]
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0


def _details(frame: Image) -> NDArray[np.float32]:
    """Gray [h, w] without what is as large as a lamp's light, which a change of brightness may alter."""
    gray = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), (0, 0), 1.5).astype(np.float32)
    wide = cv2.GaussianBlur(gray, (0, 0), 8)
    scale = np.sqrt(cv2.GaussianBlur((gray - wide) ** 2, (0, 0), 8)) + 4
    return np.asarray((gray - wide) / scale, np.float32)
