"""Road, kerbs and pavements with their markings."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike

from edgeseg.synth.camera import FAR, Camera, Color, Floats
from edgeseg.synth.renderer import PAVEMENT, ROAD, SKY, Renderer
from edgeseg.synth.texture import Rng, speckle


class Ground:
    """The ground, repeating every `period` meters."""

    def __init__(self, rng: Rng, camera: Camera, half: float, walk: float, period: float):
        self.camera, self.half, self.walk, self.period = camera, half, walk, period
        asphalt = ((98, 96, 94), (74, 72, 71), (122, 118, 114), (92, 92, 112), (84, 86, 84))
        paving = ((138, 142, 146), (112, 114, 116), (116, 126, 142), (100, 98, 97), (150, 152, 152), (98, 112, 138))
        self.asphalt = np.array(asphalt[rng.integers(5)]) * rng.uniform(0.85, 1.15)
        self.paving = np.array(paving[rng.integers(6)]) * rng.uniform(0.85, 1.1)
        self.marking_color = np.array([222, 226, 228]) * rng.uniform(0.8, 1.0)
        self.wet = float(rng.uniform(0.25, 0.6)) if rng.random() < 0.25 else 0.0
        self.zebras = np.sort(rng.uniform(0, period, rng.integers(1, 4))).tolist()
        self.side_streets: list[tuple[float, float, int]] = []  # from, to (meters), side -1 or 1
        self.edge_lines, self.lanes = rng.random() < 0.5, 2 if half > 7 else 1
        count = int(rng.integers(6, 22))
        x, z = rng.uniform(-half, half, count), rng.uniform(0, period, count)
        wide, long = rng.uniform(0.5, 2.2, count), rng.uniform(0.8, 9, count)
        tint = np.where(rng.random(count) < 0.6, 0.82, 1.12)
        self.patches = np.stack([x, np.minimum(x + wide, half), z, long, tint], 1)
        self._x, self._z = camera.ground()
        self._tiles = self._make_tiles(rng)

    def _make_tiles(self, rng: Rng) -> tuple[Floats, Floats]:
        """Brightness textures of asphalt and paving: 256 x 256 pixels for 4 x 4 meters."""
        grain = speckle(rng, 256)
        slabs = 1 + 0.05 * speckle(rng, 256)
        deep = int(rng.choice([32, 64, 128]))
        for i, row in enumerate(range(0, 256, deep)):
            for left in range(0, 256, 64):
                start = (left + 32 * (i % 2)) % 256
                slabs[row : row + deep, start : start + 64] *= rng.uniform(0.9, 1.08)
                slabs[row : row + deep, start : start + 2] *= 0.72
            slabs[row : row + 2] *= 0.72
        return (1 + rng.uniform(0.05, 0.12) * grain).astype(np.float32), slabs.astype(np.float32)

    def draw(self, renderer: Renderer, position: float) -> None:
        """The flat colors and labels, with the camera `position` meters along the street."""
        half, walk, top = self.half, self.walk, self.camera.top
        foot = min(self.camera.height, int(self.camera.horizon + self.camera.elevation * self.camera.focal / 260) + 1)
        renderer.mask[foot:] = PAVEMENT
        renderer.image[foot:] = np.clip(self.paving * 0.94, 0, 255).astype(np.uint8)
        below = renderer.mask[top:foot] == SKY
        renderer.mask[top:foot][below] = PAVEMENT
        for side in (-1, 1):
            self._strip(renderer, side * half, side * (half + walk), self.paving, PAVEMENT)
            self._strip(renderer, side * half, side * (half + 0.2), self.paving * 1.18, PAVEMENT)
        self._strip(renderer, -half, half, self.asphalt, ROAD)
        for side in (-1, 1):
            self._strip(renderer, side * (half - 0.3), side * half, self.asphalt * 0.84, ROAD)
        streets = [
            _rectangle(side * (half - 0.1), side * 70, z, z + end - start)
            for start, end, side in self.side_streets
            for z in self._if_near(start, position)
        ]
        renderer.ground(np.array(streets).reshape(-1, 4, 2), self.asphalt, ROAD)
        near = (self.patches[:, 2] - position + 30) % self.period - 30
        for tint in (0.82, 1.12):
            nearby = (self.patches[:, 4] == tint) & (near < 120)
            x0, x1, _, long, _ = self.patches[nearby].T
            spots = _rectangles(x0, x1, near[nearby], near[nearby] + long)
            renderer.ground(spots, np.clip(self.asphalt * tint, 0, 255), ROAD)
        renderer.ground(self._markings(position), self.marking_color, ROAD)

    def _if_near(self, start: float, position: float) -> list[float]:
        z = (start - position + 30) % self.period - 30
        return [z] if z < FAR * 0.6 else []

    def _strip(self, renderer: Renderer, x0: float, x1: float, color: Color, label: int) -> None:
        z = np.geomspace(1.0, FAR, 24 if self.camera.bend else 2)
        edge = np.stack([np.full(len(z), x0), z], 1), np.stack([np.full(len(z), x1), z], 1)[::-1]
        renderer.ground(np.concatenate(edge)[None], np.clip(color, 0, 255), label)

    def _markings(self, position: float) -> Floats:
        """Painted lines and zebra crossings, [N, 4, 2] of (x, z)."""
        half, zebras = self.half, np.array([z for zebra in self.zebras for z in self._if_near(zebra, position)])
        starts = np.arange(-(position % 9), 120, 9)
        clear = (np.abs(starts[:, None] + 0.5 - zebras[None]) > 6).all(1)
        starts = starts[clear]
        shapes = [
            _rectangles(x - 0.08, x + 0.08, starts, starts + 4)
            for x in ([0.0] if self.lanes == 1 else [-half / 2, 0.0, half / 2])
        ]
        if self.edge_lines:
            ends = np.geomspace(1, 120, 12)
            shapes += [_rectangles(x, x + 0.12, ends[:-1], ends[1:]) for x in (0.45 - half, half - 0.57)]
        stripes = np.arange(-half + 0.5, half - 0.6, 1.0)
        for z in zebras:
            shapes += [_rectangles(stripes, stripes + 0.5, z, z + 3), _rectangles(0.2, half - 0.4, z - 1.6, z - 1.25)]
        return np.concatenate(shapes)

    def shade(self, renderer: Renderer, position: float) -> None:
        """Texture, shadows, light and haze on the whole ground, which has only flat colors so far."""
        top = self.camera.top
        image, road = renderer.image[top:], renderer.mask[top:] == ROAD
        across = np.mod(self._x * 64, 256).astype(np.float32)
        along = np.broadcast_to(
            np.mod((self._z + np.float32(position % 400.0)) * 64, 256).astype(np.float32), across.shape
        )
        both = [cv2.remap(t, across, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP) for t in self._tiles]
        fade = 1 / (1 + (self._z**2 / (self.camera.focal * self.camera.elevation) / 0.12) ** 2)
        gain = 1 + (np.where(road, both[0], both[1]) - 1) * fade
        shadow = cv2.resize(cv2.GaussianBlur(renderer.shadow, (5, 5), 0), (self.camera.width, self.camera.height))[top:]
        gain *= shadow * np.float32(1 / 255)
        veil = renderer.atmosphere.haze_share(self._z)
        gain *= 1 - veil
        shaped = cv2.merge([gain, gain, gain])
        if renderer.atmosphere.night > 0:
            x, z = self.camera.ground(4)
            light = cv2.resize(renderer.atmosphere.light(x, z), (self.camera.width, len(image)))
            shaped = cv2.multiply(shaped, light)
        lit = np.asarray(cv2.multiply(image, shaped, dtype=cv2.CV_32F)) + (
            veil[..., None] * np.array(renderer.atmosphere.haze)
        ).astype(np.float32)
        far = renderer.mask[top:] > PAVEMENT  # the skyline: it has its light and haze already
        lit[far] = image[far]
        renderer.image[top:] = np.clip(lit, 0, 255).astype(np.uint8)

    def reflect(self, renderer: Renderer) -> None:
        """A wet road reflects what stands above the horizon."""
        top = self.camera.top
        rows = np.clip(2 * top - np.arange(top, self.camera.height) - 1, 0, top)
        above = cv2.blur(renderer.image[rows], (5, max(3, self.camera.height // 18)))
        road = renderer.mask[top:] == ROAD
        mixed = cv2.addWeighted(renderer.image[top:], 1 - self.wet * 0.6, above, self.wet * 0.7, 0)
        cv2.copyTo(mixed, road.astype(np.uint8), renderer.image[top:])


def _rectangle(x0: float, x1: float, z0: float, z1: float) -> Floats:
    return np.array([[x0, z0], [x1, z0], [x1, z1], [x0, z1]])


def _rectangles(x0: ArrayLike, x1: ArrayLike, z0: ArrayLike, z1: ArrayLike) -> Floats:
    """[N, 4, 2]; numbers and arrays [N] may be mixed."""
    a, b, c, d = np.atleast_1d(*np.broadcast_arrays(x0, x1, z0, z1))
    return np.stack([np.stack([a, c], -1), np.stack([b, c], -1), np.stack([b, d], -1), np.stack([a, d], -1)], 1)
