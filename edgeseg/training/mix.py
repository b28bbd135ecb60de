"""What one training frame shows of another: a rectangle (CutMix) or an object of a rare class (copy-paste).

The other frame is warped by a random geometry of its own, with its labels, so that what is pasted stays exact: its
pixels and labels come from the same positions, and what is unknown there is ignored here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.images import Image
from edgeseg.recipe import Settings
from edgeseg.training.augment import Geometry, Layer, warp

Where = NDArray[np.bool_]
TEMPERATURE = 0.01
CUTMIX, COPY_PASTE = 1, 2  # end the seeds, so that neither changes the random numbers of anything else


@dataclass(frozen=True)
class RareClasses:
    """The classes with less than the mean share of the labeled pixels: `ids` [R], the `chances` [R] of choosing each,
    and the frames that hold it."""

    ids: NDArray[np.int64]
    chances: NDArray[np.float64]
    frames: tuple[NDArray[np.int64], ...]

    @classmethod
    def among(cls, pixels: NDArray[np.int64]) -> RareClasses:
        """From the labeled `pixels` [N, C] of each class in each frame.

        The chance of a class with the share f is proportional to exp((1 - f) / TEMPERATURE): rare class sampling (Hoyer
        et al. 2022, DAFormer).
        """
        totals = pixels.sum(0)
        shares = totals / max(1, int(totals.sum()))
        present = totals > 0
        ids = np.flatnonzero(present & (shares < 1 / max(1, int(present.sum()))))
        chances = np.exp((shares[ids].min(initial=1.0) - shares[ids]) / TEMPERATURE)
        return cls(ids, chances / max(1.0, chances.sum()), tuple(np.flatnonzero(pixels[:, i]) for i in ids))


@dataclass(frozen=True)
class Frames:
    """What there is to paste. `read(i)`: frame [H, W, 3] and mask [H, W], uint8. `objects(i)`: the object that each
    pixel of frame i belongs to, [H, W] uint16 with 0 for none, or None where that is unknown."""

    count: int
    rare: RareClasses
    read: Callable[[int], tuple[Image, Image]]
    objects: Callable[[int], NDArray[np.uint16] | None]


def layers(
    frames: Frames, index: int, height: int, width: int, settings: Settings, seed: tuple[int, ...]
) -> list[Layer]:
    """What covers frame `index`, from bottom to top; the same for the same `seed`. Empty if both settings are off."""
    found = []
    if settings.cutmix and frames.count > 1:
        random = np.random.default_rng((*seed, CUTMIX))
        other = (index + int(random.integers(1, frames.count))) % frames.count
        layer = _whole(frames, other, height, width, settings, random)
        found.append(dataclasses.replace(layer, where=rectangle(layer.where, settings.cutmix, random)))
    if settings.copy_paste and len(frames.rare.ids):
        random = np.random.default_rng((*seed, COPY_PASTE))
        chosen = int(random.choice(len(frames.rare.ids), p=frames.rare.chances))
        others = frames.rare.frames[chosen][frames.rare.frames[chosen] != index]
        if random.random() < settings.copy_paste and len(others):
            layer = _whole(frames, int(random.choice(others)), height, width, settings, random)
            objects = frames.objects(layer.index)
            if objects is not None:
                objects = layer.geometry.apply(objects, cv2.INTER_NEAREST, (0,))
            where = thing(layer.mask, objects, int(frames.rare.ids[chosen]), random)
            found.append(dataclasses.replace(layer, where=where))
    return found


def rectangle(within: Where, largest: float, random: np.random.Generator) -> Where:
    """[H, W], like `within`: a rectangle of up to the share `largest` of each side (Yun et al. 2019, CutMix)."""
    height, width = within.shape
    tall, wide = (int(side * random.uniform(0, largest)) for side in (height, width))
    top, left = random.integers(0, height - tall + 1), random.integers(0, width - wide + 1)
    where = np.zeros((height, width), bool)
    where[top : top + tall, left : left + wide] = True
    return where


def thing(mask: Image, objects: NDArray[np.uint16] | None, class_id: int, random: np.random.Generator) -> Where:
    """[H, W]: one thing of a class, that at a random pixel of it: an object or, where objects are unknown, a connected
    region. Nothing where the mask does not hold the class."""
    inside: Where = mask == class_id
    pixels = np.flatnonzero(inside)
    if not len(pixels):
        return inside
    pixel = pixels[random.integers(len(pixels))]
    if objects is not None and objects.flat[pixel]:
        inside &= objects == objects.flat[pixel]
        return inside
    _, regions = cv2.connectedComponents(inside.astype(np.uint8), connectivity=8)
    inside &= regions == regions.flat[pixel]
    return inside


def _whole(
    frames: Frames, index: int, height: int, width: int, settings: Settings, random: np.random.Generator
) -> Layer:
    """All of frame `index` under a random geometry."""
    geometry = Geometry.draw(height, width, settings, random)
    frame, mask = warp(*frames.read(index), height, width, settings, random, geometry)
    return Layer(index, geometry, frame, mask, np.ones(mask.shape, bool))
