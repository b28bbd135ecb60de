"""Local features of frames (ORB, Rublee et al. 2011), which a part of a picture shares with the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

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
Ints = NDArray[np.int32]
Table = tuple[Ints, Ints, Ints]
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


def shared_features(
    features: Sequence[LocalFeatures], splits: Sequence[str], skip: Callable[[int, int], bool]
) -> Iterator[tuple[int, int]]:
    """Pairs i < j of frames that share features, of each frame the likeliest in each split that `skip` does not
    refuse."""
    counts = [len(f.descriptors) for f in features]
    if not sum(counts):
        return
    owner = np.repeat(np.arange(len(features), dtype=np.int32), counts)
    bits = np.random.default_rng(0).permutation(256)[: TABLES * KEY_BITS].reshape(TABLES, KEY_BITS)
    tables = [_table(features, chosen) for chosen in bits]
    starts = np.concatenate([[0], np.cumsum(counts)])
    seen: set[tuple[int, int]] = set()
    for i in range(len(features)):
        mine = slice(starts[i], starts[i + 1])
        votes = np.bincount(np.concatenate([owner[_same_key(*table, mine)] for table in tables]), minlength=i + 1)
        votes[i] = 0
        taken = Counter[str]()
        for j in np.argsort(-votes, kind="stable")[:MOST_LOOKED_AT].tolist():
            pair = (min(i, j), max(i, j))
            if votes[j] < VOTES:
                break
            if taken[splits[j]] < CANDIDATES and not skip(*pair):
                taken[splits[j]] += 1
                if pair not in seen:
                    seen.add(pair)
                    yield pair


def _same_key(keys: Ints, order: Ints, in_order: Ints, mine: slice) -> Ints:
    """The entries of a table that have a key of the entries `mine`; keys that many have are left out."""
    wanted = np.unique(keys[mine])
    low, high = np.searchsorted(in_order, wanted), np.searchsorted(in_order, wanted, "right")
    number = np.where(high - low <= BUCKET, high - low, 0)
    at = np.repeat(low - np.cumsum(number) + number, number) + np.arange(number.sum())
    return np.asarray(order[at], np.int32)


def _table(features: Sequence[LocalFeatures], chosen: NDArray[np.int64]) -> Table:
    """The key of each feature, from the chosen bits of its descriptor; their order; the keys in it."""
    weights = (1 << np.arange(KEY_BITS)).astype(np.int32)
    byte, bit = chosen >> 3, (chosen & 7).astype(np.uint8)
    keys = np.concatenate([(f.descriptors[:, byte] >> bit & 1).astype(np.int32) @ weights for f in features])
    order = np.argsort(keys, kind="stable").astype(np.int32)
    return keys, order, keys[order]


def transform(first: LocalFeatures, second: LocalFeatures) -> Matrix | None:
    """[2, 3]: turns, scales and shifts places in the first frame onto the second; None where they do not agree."""
    if min(len(first.descriptors), len(second.descriptors)) < INLIERS:
        return None
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(first.descriptors, second.descriptors)
    near = [(m.queryIdx, m.trainIdx) for m in matches if m.distance <= FARTHEST]
    if len(near) < INLIERS:
        return None
    a, b = np.array(near).T
    matrix, inliers = cv2.estimateAffinePartial2D(
        first.at[a].astype(np.float32), second.at[b].astype(np.float32), ransacReprojThreshold=3.0, maxIters=500
    )
    if matrix is None or int(inliers.sum()) < INLIERS:
        return None
    scale, turned = float(np.hypot(matrix[0, 0], matrix[1, 0])), abs(float(np.arctan2(matrix[1, 0], matrix[0, 0])))
    return np.asarray(matrix, np.float64) if SIZE_RANGE[0] <= scale <= SIZE_RANGE[1] and turned < 0.1 else None


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
