"""Images that are drawn at any size, noise to make them of, and cut-outs."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edgeseg.images import Image
from edgeseg.synth.camera import Floats

Rng = np.random.Generator


class Texture:
    """An image at every size up to its own, so that drawing it small costs little and does not flicker."""

    def __init__(self, image: Image):
        self.levels = [image]
        while min(self.levels[-1].shape[:2]) > 3:
            height, width = self.levels[-1].shape[:2]
            half = cv2.resize(self.levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
            self.levels.append(np.asarray(half, np.uint8))

    def resized(self, width: int, height: int) -> Image:
        """The image at this size, or at its own where that is smaller."""
        height, width = (max(1, min(a, b)) for a, b in zip((height, width), self.levels[0].shape))
        level = next(i for i in reversed(self.levels) if i.shape[0] >= height and i.shape[1] >= width)
        return np.asarray(cv2.resize(level, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True)
class Sprite:
    """A cut-out: colors [S, S, 3] and its shape [S, S], opaque where > 127."""

    colors: Texture
    shape: Texture


def noise(rng: Rng, height: int, width: int, cell: float) -> Floats:
    """Smooth noise [height, width], mean 0, about -1..1, with blobs of `cell` pixels.

    Drawn from a child of `rng`, so that a scene is laid out alike at every image size.
    """
    rough = rng.spawn(1)[0].standard_normal((max(2, int(height / cell)), max(2, int(width / cell))), np.float32)
    return np.asarray(cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC))


def speckle(rng: Rng, size: int) -> Floats:
    """Noise [size, size] in several sizes of grain, which repeats without a seam."""
    total = np.zeros((size, size), np.float32)
    for cell, weight in ((1, 0.35), (4, 0.35), (16, 0.3), (64, 0.3)):
        rough = np.pad(rng.standard_normal((size // cell, size // cell), np.float32), 2, mode="wrap")
        wide = cv2.resize(rough, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
        total += weight * wide[2 * cell : 2 * cell + size, 2 * cell : 2 * cell + size]
    return total


def as_bytes(image: Floats) -> Image:
    return np.clip(image, 0, 255).astype(np.uint8)
