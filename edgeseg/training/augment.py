"""Augmentation of a frame and its mask: geometry for both in one warp, then color, blur and noise for the frame.

Written with OpenCV alone: the random numbers come from one generator, so that a frame depends on (seed, epoch, index)
and nothing else, and one warp does zoom, crop, flip, rotation, perspective and elastic deformation with a single
interpolation. Of the libraries for this, albumentations' last MIT release (2.0.8) is no longer maintained and its
successor is AGPL; kornia and torchvision draw from torch's global generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.images import Image
from edgeseg.recipe import Settings
from edgeseg.training.distort import cutout, distort, jpeg
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
    layers: Sequence[Layer] = (),
) -> tuple[Floats, Image]:
    """The frame as float32 [H, W, 3] in 0..255 and its mask [H, W]; H x W is the crop, or `height` x `width`.

    `geometry` is drawn from `random` unless it is given. `layers` are laid over the warped frame, one after the other,
    before light, weather and the camera change it as a whole.
    """
    frame, mask = warp(frame, mask, height, width, settings, random, geometry)
    for layer in layers:
        frame = np.where(layer.where[..., None], layer.frame, frame)
        mask = np.where(layer.where, layer.mask, mask)
    image = distort(recolor(frame.astype(np.float32), settings.jitter, random), settings, random)
    image = jpeg(blur_and_noise(image, settings.blur, settings.noise, random), settings.jpeg, random)
    return cutout(image, mask, settings.cutout, GRAY, IGNORE, random)


def warp(
    frame: Image,
    mask: Image,
    height: int,
    width: int,
    settings: Settings,
    random: np.random.Generator,
    geometry: Geometry | None = None,
) -> tuple[Image, Image]:
    """Stretch to height x width as inference does, then zoom, mirror, rotate, deform and crop, all in one warp.

    Outside the original frame, the result is gray and its mask IGNORE.
    """
    geometry = geometry or Geometry.draw(height, width, settings, random)
    image = geometry.apply(frame, cv2.INTER_LINEAR, GRAY)
    labels = geometry.apply(mask, cv2.INTER_NEAREST, (IGNORE,))
    return image.astype(np.uint8, copy=False), labels.astype(np.uint8, copy=False)


@dataclass(frozen=True)
class Geometry:
    """A random zoom, crop position, mirroring, rotation, perspective and elastic deformation (`shifts` [H, W, 2]).

    `homography` [3, 3] maps output positions to those that they have without perspective. A Geometry maps
    arrays of any resolution that cover the frame of `width` x `height` to arrays of `size` (width, height).
    """

    height: int
    width: int
    size: tuple[int, int]
    factor: float
    corner: tuple[float, float]
    mirror: bool
    angle: float
    shifts: Floats | None
    homography: NDArray[np.float64] | None = None

    @classmethod
    def draw(cls, height: int, width: int, settings: Settings, random: np.random.Generator) -> Geometry:
        low, high = settings.scale
        factor = float(np.exp(random.uniform(np.log(low), np.log(high))))
        size = (settings.crop[1] or width, settings.crop[0] or height)
        left, top = (side * factor - cut for side, cut in zip((width, height), size))
        corner = random.uniform(min(0, left), max(0, left)), random.uniform(min(0, top), max(0, top))
        mirror = bool(settings.flip and random.random() < 0.5)
        angle = random.uniform(-settings.rotate, settings.rotate) if settings.rotate else 0.0
        elastic = shifts(size, settings.elastic, random) if settings.elastic else None
        tilted = tilt(size, settings.perspective, random) if settings.perspective else None
        return cls(height, width, size, factor, corner, mirror, angle, elastic, tilted)

    def apply(self, array: NDArray[Any], interpolation: int, border: tuple[int, ...]) -> NDArray[Any]:
        """Transform an array [h, w] or [h, w, channels]; positions outside of it become `border`."""
        matrix = self.matrix(*array.shape[:2])
        if self.shifts is None and self.homography is None:
            flags = interpolation | cv2.WARP_INVERSE_MAP
            return cv2.warpAffine(array, matrix, self.size, flags=flags, borderValue=border)
        x, y = np.meshgrid(np.arange(self.size[0]), np.arange(self.size[1]))
        positions = np.stack([x, y], 2).astype(np.float64)
        if self.shifts is not None:
            positions += self.shifts
        if self.homography is not None:
            positions = cv2.perspectiveTransform(positions, self.homography)  # type: ignore[assignment]
        sources = (positions @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
        return cv2.remap(array, sources, None, interpolation, borderValue=border)  # type: ignore[call-overload,no-any-return]

    def matrix(self, height: int, width: int) -> NDArray[np.float64]:
        """[2, 3]: from output position (x, y, 1) to one in an array of `height` x `width`, without `shifts` and
        `homography`."""
        matrix = np.zeros((2, 3))
        for axis, (target, source) in enumerate(((self.width, width), (self.height, height))):
            step = source / (target * self.factor)  # source pixels per target pixel; centers lie at +0.5
            matrix[axis, axis] = step
            matrix[axis, 2] = (self.corner[axis] + 0.5) * step - 0.5
        if self.mirror:
            matrix[0, 2] += matrix[0, 0] * (self.size[0] - 1)
            matrix[0, 0] *= -1
        if self.angle:
            middle = ((self.size[0] - 1) / 2, (self.size[1] - 1) / 2)
            matrix = matrix @ np.vstack([cv2.getRotationMatrix2D(middle, self.angle, 1.0), (0, 0, 1)])
        return matrix


@dataclass(frozen=True)
class Layer:
    """A part of training frame `index`, moved by `geometry`, that covers another one.

    `frame` [H, W, 3] uint8 and `mask` [H, W] uint8 are the whole of it, `where` [H, W] bool the part that covers.
    """

    index: int
    geometry: Geometry
    frame: Image
    mask: Image
    where: NDArray[np.bool_]


def tilt(size: tuple[int, int], largest: float, random: np.random.Generator) -> NDArray[np.float64]:
    """The homography [3, 3] that moves each corner of `size` (width, height) by up to the share `largest` of each side.

    Below a share of 1/4 the moved corners are those of a convex quadrilateral, so that no position lies at infinity.
    """
    right, bottom = size[0] - 1, size[1] - 1
    corners = np.array([(0, 0), (right, 0), (right, bottom), (0, bottom)], np.float32)
    moved = corners + random.uniform(-largest, largest, (4, 2)).astype(np.float32) * np.array(
        (right, bottom), np.float32
    )
    return np.asarray(cv2.getPerspectiveTransform(corners, moved), np.float64)


def shifts(size: tuple[int, int], largest: float, random: np.random.Generator) -> Floats:
    """A smooth field [H, W, 2] of shifts up to about `largest` pixels for `size` (width, height): random on a coarse
    grid, with cubic interpolation."""
    coarse = random.uniform(-largest, largest, (size[1] // CELL + 2, size[0] // CELL + 2, 2)).astype(np.float32)
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


def blur_and_noise(image: Floats, blur: float, noise: float, random: np.random.Generator) -> Floats:
    """Gaussian blur with a sigma up to `blur`, then Gaussian noise with a standard deviation up to `noise`; 0 = off."""
    if blur:
        image = cv2.GaussianBlur(image, (0, 0), max(1e-3, random.uniform(0, blur)))  # type: ignore[assignment]
    if noise:
        noise_field = random.standard_normal(image.shape, np.float32) * np.float32(random.uniform(0, noise))
        image = np.clip(image + noise_field, 0, 255)
    return image
