"""Random changes of a frame and its mask: geometry for both in one warp, then color, blur and noise for the frame.

OpenCV alone, because it takes the random numbers from us, so a frame depends on (seed, epoch, index) and nothing else,
and one warp does zoom, crop, flip, rotation and elastic deformation with a single interpolation. Of the libraries made
for this, albumentations' last MIT release (2.0.8) is no longer kept and its successor is AGPL; kornia and torchvision
draw from torch's global generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.images import Image
from edgeseg.recipe import Settings
from edgeseg.training.objectives.losses import IGNORE

Floats = NDArray[np.float32]
GRAY = (124, 116, 104)  # ImageNet's mean: about 0 after normalization
CELL = 32  # pixels between the random shifts of an elastic deformation


def augment(
    frame: Image,
    mask: Image,
    height: int,
    width: int,
    settings: Settings,
    random: np.random.Generator,
    geometry: Geometry | None = None,
) -> tuple[Floats, Image]:
    """The frame as float32 [H, W, 3] in 0..255 and its mask [H, W], H x W the crop or the whole `height` x `width`.

    `geometry`: where it was already drawn from `random`.
    """
    frame, mask = warp(frame, mask, height, width, settings, random, geometry)
    image = recolor(frame.astype(np.float32), settings.jitter, random)
    return disturb(image, settings.blur, settings.noise, random), mask


def warp(
    frame: Image,
    mask: Image,
    height: int,
    width: int,
    settings: Settings,
    random: np.random.Generator,
    geometry: Geometry | None = None,
) -> tuple[Image, Image]:
    """Stretch to height x width as inference does, zoom, mirror, rotate, bend and cut out `settings.crop`, in one warp.

    Where that leaves room, the frame is padded with gray and the mask with IGNORE.
    """
    geometry = geometry or Geometry.draw(height, width, settings, random)
    image = geometry.place(frame, cv2.INTER_LINEAR, GRAY)
    labels = geometry.place(mask, cv2.INTER_NEAREST, (IGNORE,))
    return image.astype(np.uint8, copy=False), labels.astype(np.uint8, copy=False)


@dataclass(frozen=True)
class Geometry:
    """Random zoom, corner, mirroring, rotation and bending (`shifts` [H, W, 2]): from pictures of any resolution that
    show the frame of `width` x `height` to those `size` (width, height) large."""

    height: int
    width: int
    size: tuple[int, int]
    factor: float
    corner: tuple[float, float]
    mirror: bool
    angle: float
    shifts: Floats | None

    @classmethod
    def draw(cls, height: int, width: int, settings: Settings, random: np.random.Generator) -> Geometry:
        low, high = settings.scale
        factor = float(np.exp(random.uniform(np.log(low), np.log(high))))
        size = (settings.crop[1] or width, settings.crop[0] or height)
        left, top = (side * factor - cut for side, cut in zip((width, height), size))
        corner = random.uniform(min(0, left), max(0, left)), random.uniform(min(0, top), max(0, top))
        mirror = bool(settings.flip and random.random() < 0.5)
        angle = random.uniform(-settings.rotate, settings.rotate) if settings.rotate else 0.0
        bent = shifts(size, settings.elastic, random) if settings.elastic else None
        return cls(height, width, size, factor, corner, mirror, angle, bent)

    def place(self, picture: NDArray[Any], interpolation: int, border: tuple[int, ...]) -> NDArray[Any]:
        """A picture [h, w] or [h, w, channels] as it comes out; `border` where there is none of it."""
        matrix = self.matrix(*picture.shape[:2])
        if self.shifts is None:
            flags = interpolation | cv2.WARP_INVERSE_MAP
            return cv2.warpAffine(picture, matrix, self.size, flags=flags, borderValue=border)
        x, y = np.meshgrid(np.arange(self.size[0]), np.arange(self.size[1]))
        where = ((np.stack([x, y], 2) + self.shifts) @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
        return cv2.remap(picture, where, None, interpolation, borderValue=border)  # type: ignore[call-overload,no-any-return]

    def matrix(self, height: int, width: int) -> NDArray[np.float64]:
        """[2, 3]: the place in a picture of `height` x `width` that is seen at a place (x, y, 1), without bending."""
        made = np.zeros((2, 3))
        for axis, (target, source) in enumerate(((self.width, width), (self.height, height))):
            step = source / (target * self.factor)  # source pixels per target pixel; centers lie at +0.5
            made[axis, axis] = step
            made[axis, 2] = (self.corner[axis] + 0.5) * step - 0.5
        if self.mirror:
            made[0, 2] += made[0, 0] * (self.size[0] - 1)
            made[0, 0] *= -1
        if self.angle:
            middle = ((self.size[0] - 1) / 2, (self.size[1] - 1) / 2)
            made = made @ np.vstack([cv2.getRotationMatrix2D(middle, self.angle, 1.0), (0, 0, 1)])
        return made


def shifts(size: tuple[int, int], most: float, random: np.random.Generator) -> Floats:
    """A smooth field [H, W, 2] of shifts up to about `most` pixels for `size` (width, height): random on a coarse grid,
    cubic in between."""
    coarse = random.uniform(-most, most, (size[1] // CELL + 2, size[0] // CELL + 2, 2)).astype(np.float32)
    return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


def recolor(image: Floats, jitter: float, random: np.random.Generator) -> Floats:
    """Random contrast, brightness and saturation of a float image [H, W, 3] in 0..255, each up to +-`jitter`."""
    if not jitter:
        return image
    contrast, brightness, saturation = (np.float32(random.uniform(1 - jitter, 1 + jitter)) for _ in range(3))
    mean = image.mean(dtype=np.float32)
    gray = image.mean(2, keepdims=True, dtype=np.float32)
    image = gray + saturation * (image - gray)
    result: Floats = (mean + contrast * (image - mean)) * brightness
    return np.clip(result, 0, 255)


def disturb(image: Floats, blur: float, noise: float, random: np.random.Generator) -> Floats:
    """Gaussian blur of a sigma up to `blur`, then Gaussian noise of a standard deviation up to `noise`; 0 = off."""
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), max(1e-3, random.uniform(0, blur)))  # type: ignore[assignment]
    if noise:
        grain = random.standard_normal(image.shape, np.float32) * np.float32(random.uniform(0, noise))
        image = np.clip(image + grain, 0, 255)
    return image
