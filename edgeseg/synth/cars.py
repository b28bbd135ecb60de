"""Parked and moving cars."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edgeseg.synth.camera import NEAR, Color, Floats
from edgeseg.synth.renderer import CAR, UNIT_CIRCLE, Path, Renderer
from edgeseg.synth.texture import Rng

CAR_COLORS: tuple[Color, ...] = (
    (190, 188, 186), (120, 118, 116), (84, 84, 86), (34, 33, 32), (226, 228, 228), (44, 40, 168), (140, 76, 36),
    (70, 96, 60), (150, 176, 196), (96, 92, 92), (40, 120, 190), (92, 60, 44),
)  # fmt: skip


@dataclass(frozen=True)
class Body:
    """A car's side view: (distance from the rear, height) from the rear bumper over the roof to the front bumper."""

    width: float
    outline: tuple[tuple[float, float], ...]
    glazed: tuple[int, ...]  # the stretches of the outline that are glass
    panes: tuple[tuple[tuple[float, float], ...], ...]  # side windows
    wheel: float = 0.33

    @property
    def length(self) -> float:
        return self.outline[-1][0]

    @property
    def height(self) -> float:
        return max(y for _, y in self.outline)


BODIES = {
    "hatch": Body(
        1.78,
        ((0, 0.25), (0.02, 0.62), (0.1, 0.95), (0.5, 1.45), (2.2, 1.5), (3.05, 1.0), (3.9, 0.8), (4.0, 0.28)),
        (2, 4),
        (
            ((0.45, 0.98), (0.68, 1.38), (1.5, 1.42), (1.5, 0.98)),
            ((1.58, 0.98), (1.58, 1.42), (2.15, 1.4), (2.85, 0.98)),
        ),
    ),
    "sedan": Body(
        1.82,
        (
            (0, 0.26),
            (0.02, 0.66),
            (0.1, 0.96),
            (0.75, 1.02),
            (1.4, 1.42),
            (2.7, 1.45),
            (3.5, 1),
            (4.5, 0.8),
            (4.6, 0.28),
        ),
        (3, 5),
        (
            ((1.05, 1.0), (1.5, 1.36), (2.05, 1.38), (2.05, 0.98)),
            ((2.13, 0.98), (2.13, 1.38), (2.66, 1.37), (3.3, 0.98)),
        ),
    ),
    "van": Body(
        1.98,
        ((0, 0.3), (0, 0.7), (0.02, 1.15), (0.12, 2.0), (3.9, 2.1), (4.5, 1.2), (5.1, 1.0), (5.2, 0.3)),
        (2, 4),
        (((3.0, 1.2), (3.0, 1.85), (3.85, 1.88), (4.3, 1.2)),),
        0.36,
    ),
    "bus": Body(
        2.5,
        ((0, 0.3), (0, 1.2), (0.02, 2.5), (0.1, 3.0), (10.7, 3.0), (10.95, 2.4), (11.0, 1.1), (11.0, 0.3)),
        (1, 5),
        tuple(((a, 1.3), (a, 2.45), (a + 1.55, 2.45), (a + 1.55, 1.3)) for a in (0.6, 2.3, 4.0, 5.7, 7.4, 9.1)),
        0.48,
    ),
    "truck": Body(
        2.4,
        ((0, 0.6), (0, 1.2), (0, 2.2), (0.02, 3.2), (5.6, 3.2), (5.7, 2.3), (6.9, 2.2), (7.2, 1.4), (7.3, 0.4)),
        (6,),
        (((6.0, 1.4), (6.0, 2.05), (6.75, 2.05), (6.95, 1.4)),),
        0.48,
    ),
}


class Car:
    """A car at `x`; `path` gives the position of its near end; `oncoming` cars show us their front."""

    def __init__(self, rng: Rng, x: float, path: Path, oncoming: bool, moving: bool, kinds: tuple[str, ...] = ()):
        names = kinds or ("hatch", "hatch", "hatch", "sedan", "sedan", "sedan", "van", "bus", "truck")
        self.body = BODIES[names[rng.integers(len(names))]]
        self.color = np.array(CAR_COLORS[rng.integers(len(CAR_COLORS))]) * rng.uniform(0.9, 1.1)
        self.x, self.position, self.oncoming, self.moving = x, path, oncoming, moving
        self.depth, self.visible_range = 0.0, 140.0

    def _z(self, z: float, along: float) -> float:
        return z + (self.body.length - along if self.oncoming else along)

    def _half(self, y: float) -> float:
        """Half the width at a height: the cabin narrows above the doors."""
        top = self.body.height
        narrow = 0.16 if top < 2.3 else 0.03
        return self.body.width / 2 * (1 - narrow * min(max((y - 0.95) / (top - 0.95), 0.0), 1.0))

    def cast_shadow(self, renderer: Renderer, z: float, seconds: float) -> None:
        x, half, end = self.x, self.body.width / 2, z + self.body.length
        dx, dz = (s * self.body.height * 0.8 for s in renderer.atmosphere.shadow_slope)
        corners = np.array([[x - half, z], [x + half, z], [x + half, end], [x - half, end]])
        if renderer.atmosphere.sun > 0:
            hull = _hull(np.concatenate([corners, corners + np.array([dx, dz])]))
            renderer.draw_shadow(hull, 0.45 * renderer.atmosphere.sun)
        renderer.draw_shadow([[x - half, z - 0.1], [x + half, z - 0.1], [x + half, end], [x - half, end]], 0.62)

    def draw(self, renderer: Renderer, z: float, seconds: float) -> None:
        if z + self.body.length <= NEAR:
            return
        near = max(z, NEAR)
        ends = renderer.camera.project(
            [[self.x + s * self.body.width / 2, 0.5, d] for s in (-1, 1) for d in (near, z + self.body.length)]
        )
        detailed = renderer.camera.focal / near > 16
        if renderer.camera.focal / near > 8:
            self._tyres(renderer, z)
        for side, (close, far) in ((-1, ends[:2, 0]), (1, ends[2:, 0])):
            if (far - close) * side > 0:
                self._flank(renderer, z, side, detailed)
        self._end(renderer, z, detailed)

    def _end(self, renderer: Renderer, z: float, detailed: bool) -> None:
        """The end towards us: bumper, boot or bonnet, window, roof; the highest first."""
        body, outline = self.body, self.body.outline
        count = len(outline) - 1
        for i in range(count) if self.oncoming else range(count - 1, -1, -1):
            low, high = (outline[i + 1], outline[i]) if self.oncoming else (outline[i], outline[i + 1])
            (z0, y0), (z1, y1) = (self._z(z, low[0]), low[1]), (self._z(z, high[0]), high[1])
            if (y1 - y0) * z0 + (z1 - z0) * (renderer.camera.elevation - y0) <= 0:
                continue
            a, b = self._half(y0), self._half(y1)
            up = abs(z1 - z0) / (abs(z1 - z0) + abs(y1 - y0) + 1e-6)
            color = self.color * (0.82 + 0.3 * up) * (renderer.atmosphere.face_brightness(0, -1) * (1 - up) + up)
            quad = [[self.x - a, y0, z0], [self.x + a, y0, z0], [self.x + b, y1, z1], [self.x - b, y1, z1]]
            renderer.fill(quad, color, CAR)
            if i in body.glazed:
                dy, dz, part = 0.08 * (y1 - y0), 0.08 * (z1 - z0), 0.88
                pane = [
                    [self.x - a * part, y0 + dy, z0 + dz],
                    [self.x + a * part, y0 + dy, z0 + dz],
                    [self.x + b * part, y1 - dy, z1 - dz],
                    [self.x - b * part, y1 - dy, z1 - dz],
                ]
                renderer.fill(pane, (88, 78, 68), CAR)
                if detailed:  # a reflection
                    renderer.fill([pane[0], pane[3], pane[2]], (112, 102, 92), CAR)
        if detailed:
            self._lights(renderer, z)

    def _lights(self, renderer: Renderer, z: float) -> None:
        low, half = 0.62 if self.body.height < 2.3 else 0.8, self.body.width / 2
        z, on = z - 0.01, self.moving and renderer.atmosphere.night > 0.15
        color = (
            ((235, 245, 250) if on else (210, 214, 214)) if self.oncoming else ((60, 50, 255) if on else (40, 34, 165))
        )
        for side in (-1, 1):
            box = _upright(self.x + side * (half - 0.2), low, 0.17, 0.1, z)
            renderer.fill(box, color, CAR, glow=on)
        renderer.fill(_upright(self.x, low - 0.2, 0.26, 0.06, z), (206, 212, 214), CAR)
        if self.oncoming:
            renderer.fill(_upright(self.x, low - 0.02, half * 0.5, 0.07, z), (38, 38, 38), CAR)
        renderer.fill(_upright(self.x, low - 0.31, half * 0.92, 0.05, z), self.color * 0.45, CAR)

    def _tyres(self, renderer: Renderer, z: float) -> None:
        half, axle = self.body.width / 2, z + 0.45
        for side in (-1, 1):
            renderer.fill(_upright(self.x + side * (half - 0.14), 0.22, 0.12, 0.22, axle), (26, 25, 25), CAR)

    def _flank(self, renderer: Renderer, z: float, side: int, detailed: bool) -> None:
        def wall(points: tuple[tuple[float, float], ...], out: float) -> list[list[float]]:
            return [[self.x + side * (self._half(y) + out), y, self._z(z, along)] for along, y in points]

        shade = renderer.atmosphere.face_brightness(side, 0) * 0.95
        renderer.fill(wall(self.body.outline, 0), self.color * shade, CAR)
        if detailed:
            sill = ((0.1, 0.26), (0.1, 0.42), (self.body.length - 0.1, 0.42), (self.body.length - 0.1, 0.26))
            renderer.fill(wall(sill, 0), self.color * shade * 0.6, CAR)
        if renderer.camera.focal / max(z, NEAR) < 7:
            return
        for pane in self.body.panes:
            renderer.fill(wall(pane, 0), (76, 66, 58), CAR)
        radius = self.body.wheel
        for along in (self.body.length * 0.19, self.body.length * 0.81):
            for size, color in ((radius, (26, 25, 25)), (radius * 0.6, (124, 124, 124))):
                wheel = [(along + size * c, radius + size * s) for c, s in UNIT_CIRCLE]
                renderer.fill([[self.x + side * self.body.width / 2, y, self._z(z, a)] for a, y in wheel], color, CAR)


def _upright(x: float, y: float, half: float, tall: float, z: float) -> list[list[float]]:
    return [[x - half, y - tall, z], [x + half, y - tall, z], [x + half, y + tall, z], [x - half, y + tall, z]]


def _hull(points: Floats) -> Floats:
    return np.asarray(cv2.convexHull(points.astype(np.float32))[:, 0], np.float64)
