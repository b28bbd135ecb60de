"""Perceptual hash: the same picture gives nearly the same bits, whatever file it is stored in.

The difference hash of Krawetz (2013), 16x16 bits of "brighter than the left neighbor" and as many of "brighter than the
upper one". The same picture as a poor JPEG, at another size, brighter, noisier or cropped by 1 % differs in up to about
46 of the 512 bits; on CamVid the nearest frames of two splits differ in 135, on rendered streets in 151, in thick fog
in 61. Two frames of a camera that does not move count as the same picture, too. Frames that are nearly all black agree
in most bits whatever they show, so their small gray images must correlate as well.
"""

from __future__ import annotations

from dataclasses import dataclass

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


def perceptual_hash(frame: Image) -> PerceptualHash:
    """The perceptual hash of [H, W, 3] uint8 BGR."""
    return _hash(_small(frame))


def perceptual_hashes(frame: Image) -> tuple[PerceptualHash, PerceptualHash]:
    """The perceptual hashes of [H, W, 3] uint8 BGR and of its mirror image."""
    small = _small(frame)
    return _hash(small), _hash(small[:, ::-1])


def _small(frame: Image) -> Floats:
    small = cv2.resize(frame, (SIDE + 1, SIDE + 1), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.float32)


def _hash(gray: Floats) -> PerceptualHash:
    brighter = np.stack([gray[:SIDE, 1:] > gray[:SIDE, :-1], gray[1:, :SIDE] > gray[:-1, :SIDE]])
    centered = gray.ravel() - gray.mean()
    return PerceptualHash(
        np.where(brighter.ravel(), np.float32(1), np.float32(-1)), centered / max(1e-6, np.linalg.norm(centered))
    )
