"""Hedges and trees."""

from __future__ import annotations

import cv2
import numpy as np

from edgeseg.synth.atmosphere import Atmosphere
from edgeseg.synth.renderer import TREE, Renderer, Standing
from edgeseg.synth.texture import Rng, Sprite, Texture, as_bytes, noise


class Hedge(Standing):
    """A hedge along the edge of a park."""

    def __init__(self, leaves: Texture, side: int, start: float, length: float, front: float, height: float):
        super().__init__(start)
        self.leaves, self.side, self.depth, self.front, self.height = leaves, side, length, front, height

    def draw(self, renderer: Renderer, z: float, seconds: float) -> None:
        x, h, end, out = self.side * self.front, self.height, z + self.depth, self.side * (self.front + 1.2)
        renderer.fill([[x, h, z], [out, h, z], [out, 0, z], [x, 0, z]], (46, 74, 60), TREE)
        quad = np.array([[x, h, z], [x, h, end], [x, 0, end], [x, 0, z]], float)
        renderer.texture(self.leaves, quad, TREE, renderer.atmosphere.face_brightness(-self.side, 0))


def leaves(rng: Rng, pixels: float, atmosphere: Atmosphere) -> Texture:
    """A wall of leaves, 8 by 2 meters."""
    height, width = int(2 * pixels), int(8 * pixels)
    tint = np.array((44, 88, 66)) * rng.uniform(0.7, 1.2)
    mottled = 1 + 0.25 * noise(rng, height, width, 2) + 0.15 * noise(rng, height, width, pixels / 2)
    return Texture(
        as_bytes(tint * mottled[..., None] * np.linspace(1.1, 0.6, height)[:, None, None] * atmosphere.ambient)
    )


def foliage(rng: Rng, size: int, sun_x: float) -> Sprite:
    """A trunk and a crown of many blobs, lighter towards the sun."""
    greens = ((48, 96, 74), (40, 74, 52), (58, 118, 104), (44, 92, 118), (34, 56, 44), (52, 110, 70))
    green = np.array(greens[rng.integers(len(greens))], float)
    colors, shape = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.uint8)
    bark = np.array((62, 74, 86)) * rng.uniform(0.6, 1.1)
    half, stem = size * rng.uniform(0.02, 0.03), int(size * 0.5)
    trunk = np.array(
        [[0.5 - 0.6 * half / size, 0.3], [0.5 + 0.6 * half / size, 0.3], [0.5 + half / size, 1], [0.5 - half / size, 1]]
    )
    colors[:] = bark
    cv2.fillConvexPoly(shape, np.asarray(trunk * size, np.int32), 255)
    colors[:, : size // 2] = bark * (1.15 if sun_x < 0 else 0.8)
    tall, wide = rng.uniform(0.3, 0.37), rng.uniform(0.3, 0.45)
    count = 420
    angle, out = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.random(count))
    x, y = 0.5 + wide * out * np.cos(angle), 0.36 + tall * out * np.sin(angle) * 0.92
    order = np.argsort(-(y + rng.uniform(-0.08, 0.08, count)))
    for i in order:
        bright = 1.05 - 0.9 * (y[i] - 0.36) + 0.55 * sun_x * (x[i] - 0.5) + rng.uniform(-0.18, 0.18)
        center, radius = (int(x[i] * size), int(y[i] * size)), int(size * rng.uniform(0.015, 0.055))
        cv2.circle(colors, center, radius, (green * max(bright, 0.3)).clip(0, 255).tolist(), -1)
        cv2.circle(shape, center, radius, 255, -1)
    gaps = noise(rng, size, size, size / 40) > 1.9
    shape[:stem][gaps[:stem]] = 0
    grain = 1 + 0.14 * noise(rng, size, size, max(1.0, size / 90))
    return Sprite(Texture(as_bytes(colors * grain[..., None])), Texture(shape))


class Tree(Standing):
    def __init__(self, foliage: Sprite, x: float, start: float, height: float, width: float):
        super().__init__(start)
        self.foliage, self.x, self.height, self.width = foliage, x, height, width

    def cast_shadow(self, renderer: Renderer, z: float, seconds: float) -> None:
        (dx, dz), middle = renderer.atmosphere.shadow_slope, self.height * 0.64
        angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        radius, x1, z1 = self.width * 0.4, self.x + dx * middle, z + dz * middle
        crown = np.stack([x1 + radius * np.cos(angle), z1 + radius * 1.2 * np.sin(angle)], 1)
        renderer.draw_shadow(crown, 0.45 * renderer.atmosphere.sun)
        stem = [[self.x - 0.15, z], [self.x + 0.15, z], [x1 + 0.1, z1], [x1 - 0.1, z1]]
        renderer.draw_shadow(stem, 0.45 * renderer.atmosphere.sun)

    def draw(self, renderer: Renderer, z: float, seconds: float) -> None:
        size = (self.width, self.height)
        renderer.sprite(self.foliage, (self.x, 0, z), size, TREE)
