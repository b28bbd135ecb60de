"""Random changes of a frame and its mask: geometry for both in one warp, then colour, blur and noise for the frame.

OpenCV alone, because it takes the random numbers from us, so a frame depends on (seed, epoch, index) and nothing else,
and one warp does zoom, crop, flip, rotation and elastic deformation with a single interpolation. Of the libraries made
for this, albumentations' last MIT release (2.0.8) is no longer kept and its successor is AGPL; kornia and torchvision
draw from torch's global generator.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.images import Image
from edgeseg.recipe import Settings
from edgeseg.training.losses import IGNORE

Floats = NDArray[np.float32]
GREY = (124, 116, 104)  # ImageNet's mean: about 0 after normalisation
CELL = 32  # pixels between the random shifts of an elastic deformation


def augment(
    frame: Image, mask: Image, height: int, width: int, settings: Settings, random: np.random.Generator
) -> tuple[Floats, Image]:
    """The frame as float32 [H, W, 3] in 0..255 and its mask [H, W], H x W the crop or the whole `height` x `width`."""
    frame, mask = warp(frame, mask, height, width, settings, random)
    image = recolour(frame.astype(np.float32), settings.jitter, random)
    return disturb(image, settings.blur, settings.noise, random), mask


def warp(
    frame: Image, mask: Image, height: int, width: int, settings: Settings, random: np.random.Generator
) -> tuple[Image, Image]:
    """Stretch to height x width as inference does, zoom, mirror, rotate, bend and cut out `settings.crop`, in one warp.

    Where that leaves room, the frame is padded with grey and the mask with IGNORE.
    """
    low, high = settings.scale
    factor = float(np.exp(random.uniform(np.log(low), np.log(high))))
    size = (settings.crop[1] or width, settings.crop[0] or height)
    room = [side * factor - cut for side, cut in zip((width, height), size)]
    corner = [random.uniform(min(0, free), max(0, free)) for free in room]
    mirror = settings.flip and random.random() < 0.5
    matrix = np.zeros((2, 3))
    for axis, (target, source) in enumerate(((width, frame.shape[1]), (height, frame.shape[0]))):
        step = source / (target * factor)  # source pixels per target pixel; centres lie at +0.5
        matrix[axis, axis] = step
        matrix[axis, 2] = (corner[axis] + 0.5) * step - 0.5
    if mirror:
        matrix[0, 2] += matrix[0, 0] * (size[0] - 1)
        matrix[0, 0] *= -1
    if settings.rotate:
        angle = random.uniform(-settings.rotate, settings.rotate)
        middle = ((size[0] - 1) / 2, (size[1] - 1) / 2)
        matrix = matrix @ np.vstack([cv2.getRotationMatrix2D(middle, angle, 1.0), (0, 0, 1)])
    if settings.elastic:
        x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        places = np.stack([x, y], 2) + shifts(size, settings.elastic, random)
        where = (places @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
        image = cv2.remap(frame, where, None, cv2.INTER_LINEAR, borderValue=GREY)  # type: ignore[call-overload]
        labels = cv2.remap(mask, where, None, cv2.INTER_NEAREST, borderValue=(IGNORE,))  # type: ignore[call-overload]
    else:
        inverse = cv2.WARP_INVERSE_MAP
        image = cv2.warpAffine(frame, matrix, size, flags=cv2.INTER_LINEAR | inverse, borderValue=GREY)
        labels = cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_NEAREST | inverse, borderValue=(IGNORE,))
    return image.astype(np.uint8, copy=False), labels.astype(np.uint8, copy=False)


def shifts(size: tuple[int, int], most: float, random: np.random.Generator) -> Floats:
    """A smooth field [H, W, 2] of shifts up to about `most` pixels for `size` (width, height): random on a coarse grid,
    cubic in between."""
    coarse = random.uniform(-most, most, (size[1] // CELL + 2, size[0] // CELL + 2, 2)).astype(np.float32)
    return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


def recolour(image: Floats, jitter: float, random: np.random.Generator) -> Floats:
    """Random contrast, brightness and saturation of a float image [H, W, 3] in 0..255, each up to +-`jitter`."""
    if not jitter:
        return image
    contrast, brightness, saturation = (np.float32(random.uniform(1 - jitter, 1 + jitter)) for _ in range(3))
    mean = image.mean(dtype=np.float32)
    grey = image.mean(2, keepdims=True, dtype=np.float32)
    image = grey + saturation * (image - grey)
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
