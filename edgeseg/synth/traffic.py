"""What moves in a street: cars and pedestrians."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from edgeseg.synth.renderer import CAR, NEAR, PEDESTRIAN, Canvas, Color, Floats
from edgeseg.synth.scenery import Rng

Path = Callable[[float], float]  # seconds -> meters along the street

CAR_COLORS: tuple[Color, ...] = (
    (190, 188, 186), (120, 118, 116), (84, 84, 86), (34, 33, 32), (226, 228, 228), (44, 40, 168), (140, 76, 36),
    (70, 96, 60), (150, 176, 196), (96, 92, 92), (40, 120, 190), (92, 60, 44),
)  # fmt: skip
SKIN: tuple[Color, ...] = ((150, 178, 222), (112, 146, 196), (70, 96, 140), (50, 66, 96))
CLOTHES: tuple[Color, ...] = (
    (50, 46, 44), (120, 70, 40), (60, 60, 150), (90, 92, 94), (40, 90, 60), (180, 186, 190), (30, 140, 200),
    (130, 60, 120), (96, 110, 140), (150, 140, 60), (70, 60, 58),
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
    """A car at `x`; `path` gives the place of its near end; `oncoming` cars show us their front."""

    def __init__(self, rng: Rng, x: float, path: Path, oncoming: bool, moving: bool, kinds: tuple[str, ...] = ()):
        names = kinds or ("hatch", "hatch", "hatch", "sedan", "sedan", "sedan", "van", "bus", "truck")
        self.body = BODIES[names[rng.integers(len(names))]]
        self.color = np.array(CAR_COLORS[rng.integers(len(CAR_COLORS))]) * rng.uniform(0.9, 1.1)
        self.x, self.where, self.oncoming, self.moving = x, path, oncoming, moving
        self.reach, self.sight = 0.0, 140.0

    def _z(self, z: float, along: float) -> float:
        return z + (self.body.length - along if self.oncoming else along)

    def _half(self, y: float) -> float:
        """Half the width at a height: the cabin narrows above the doors."""
        top = self.body.height
        narrow = 0.16 if top < 2.3 else 0.03
        return self.body.width / 2 * (1 - narrow * min(max((y - 0.95) / (top - 0.95), 0.0), 1.0))

    def shade(self, canvas: Canvas, z: float, seconds: float) -> None:
        x, half, end = self.x, self.body.width / 2, z + self.body.length
        dx, dz = (s * self.body.height * 0.8 for s in canvas.air.slope)
        corners = np.array([[x - half, z], [x + half, z], [x + half, end], [x - half, end]])
        if canvas.air.sun > 0:
            hull = _hull(np.concatenate([corners, corners + np.array([dx, dz])]))
            canvas.darken(hull, 0.45 * canvas.air.sun)
        canvas.darken([[x - half, z - 0.1], [x + half, z - 0.1], [x + half, end], [x - half, end]], 0.62)

    def draw(self, canvas: Canvas, z: float, seconds: float) -> None:
        if z + self.body.length <= NEAR:
            return
        near = max(z, NEAR)
        ends = canvas.camera.project([[self.x + s * self.body.width / 2, 0.5, d] for s in (-1, 1)
                                      for d in (near, z + self.body.length)])  # fmt: skip
        detailed = canvas.camera.focal / near > 16
        if canvas.camera.focal / near > 8:
            self._tyres(canvas, z)
        for side, (close, far) in ((-1, ends[:2, 0]), (1, ends[2:, 0])):
            if (far - close) * side > 0:
                self._flank(canvas, z, side, detailed)
        self._end(canvas, z, detailed)

    def _end(self, canvas: Canvas, z: float, detailed: bool) -> None:
        """The end towards us: bumper, boot or bonnet, window, roof; the highest first."""
        body, outline = self.body, self.body.outline
        count = len(outline) - 1
        for i in range(count) if self.oncoming else range(count - 1, -1, -1):
            low, high = (outline[i + 1], outline[i]) if self.oncoming else (outline[i], outline[i + 1])
            (z0, y0), (z1, y1) = (self._z(z, low[0]), low[1]), (self._z(z, high[0]), high[1])
            if (y1 - y0) * z0 + (z1 - z0) * (canvas.camera.eye - y0) <= 0:
                continue
            a, b = self._half(y0), self._half(y1)
            up = abs(z1 - z0) / (abs(z1 - z0) + abs(y1 - y0) + 1e-6)
            color = self.color * (0.82 + 0.3 * up) * (canvas.air.face(0, -1) * (1 - up) + up)
            quad = [[self.x - a, y0, z0], [self.x + a, y0, z0], [self.x + b, y1, z1], [self.x - b, y1, z1]]
            canvas.fill(quad, color, CAR)
            if i in body.glazed:
                dy, dz, part = 0.08 * (y1 - y0), 0.08 * (z1 - z0), 0.88
                pane = [
                    [self.x - a * part, y0 + dy, z0 + dz],
                    [self.x + a * part, y0 + dy, z0 + dz],
                    [self.x + b * part, y1 - dy, z1 - dz],
                    [self.x - b * part, y1 - dy, z1 - dz],
                ]
                canvas.fill(pane, (88, 78, 68), CAR)
                if detailed:  # a reflection
                    canvas.fill([pane[0], pane[3], pane[2]], (112, 102, 92), CAR)
        if detailed:
            self._lights(canvas, z)

    def _lights(self, canvas: Canvas, z: float) -> None:
        low, half = 0.62 if self.body.height < 2.3 else 0.8, self.body.width / 2
        z, on = z - 0.01, self.moving and canvas.air.night > 0.15
        color = (
            ((235, 245, 250) if on else (210, 214, 214)) if self.oncoming else ((60, 50, 255) if on else (40, 34, 165))
        )
        for side in (-1, 1):
            box = _upright(self.x + side * (half - 0.2), low, 0.17, 0.1, z)
            canvas.fill(box, color, CAR, glow=on)
        canvas.fill(_upright(self.x, low - 0.2, 0.26, 0.06, z), (206, 212, 214), CAR)
        if self.oncoming:
            canvas.fill(_upright(self.x, low - 0.02, half * 0.5, 0.07, z), (38, 38, 38), CAR)
        canvas.fill(_upright(self.x, low - 0.31, half * 0.92, 0.05, z), self.color * 0.45, CAR)

    def _tyres(self, canvas: Canvas, z: float) -> None:
        half, axle = self.body.width / 2, z + 0.45
        for side in (-1, 1):
            canvas.fill(_upright(self.x + side * (half - 0.14), 0.22, 0.12, 0.22, axle), (26, 25, 25), CAR)

    def _flank(self, canvas: Canvas, z: float, side: int, detailed: bool) -> None:
        def wall(points: tuple[tuple[float, float], ...], out: float) -> list[list[float]]:
            return [[self.x + side * (self._half(y) + out), y, self._z(z, along)] for along, y in points]

        shade = canvas.air.face(side, 0) * 0.95
        canvas.fill(wall(self.body.outline, 0), self.color * shade, CAR)
        if detailed:
            sill = ((0.1, 0.26), (0.1, 0.42), (self.body.length - 0.1, 0.42), (self.body.length - 0.1, 0.26))
            canvas.fill(wall(sill, 0), self.color * shade * 0.6, CAR)
        if canvas.camera.focal / max(z, NEAR) < 7:
            return
        for pane in self.body.panes:
            canvas.fill(wall(pane, 0), (76, 66, 58), CAR)
        radius = self.body.wheel
        for along in (self.body.length * 0.19, self.body.length * 0.81):
            for size, color in ((radius, (26, 25, 25)), (radius * 0.6, (124, 124, 124))):
                wheel = [(along + size * c, radius + size * s) for c, s in _CIRCLE]
                canvas.fill([[self.x + side * self.body.width / 2, y, self._z(z, a)] for a, y in wheel], color, CAR)


def _upright(x: float, y: float, half: float, tall: float, z: float) -> list[list[float]]:
    return [[x - half, y - tall, z], [x + half, y - tall, z], [x + half, y + tall, z], [x - half, y + tall, z]]


def _hull(points: Floats) -> Floats:
    return np.asarray(cv2.convexHull(points.astype(np.float32))[:, 0], np.float64)


_ANGLES = np.linspace(0, 2 * np.pi, 14, endpoint=False)
_CIRCLE = list(zip(np.cos(_ANGLES).tolist(), np.sin(_ANGLES).tolist()))


class Pedestrian:
    """Someone walking along (`x` fixed) or across the street (`x` a function of the distance ahead)."""

    def __init__(self, rng: Rng, path: Path, x: float | Callable[[float], float], sideways: bool):
        self.where, self.x, self.sideways = path, x, sideways
        self.size = float(rng.uniform(0.62, 0.75)) if rng.random() < 0.15 else float(rng.uniform(0.9, 1.08))
        self.coat, self.trousers = (np.array(CLOTHES[rng.integers(len(CLOTHES))]) * rng.uniform(0.7, 1.2) for _ in "ab")
        self.skin = SKIN[rng.integers(len(SKIN))]
        self.hair = ((24, 26, 30), (40, 60, 84), (90, 130, 160), (120, 120, 122))[rng.integers(4)]
        self.long_coat, self.bag, self.phase = rng.random() < 0.3, rng.random() < 0.35, float(rng.uniform(0, 6))
        self.reach, self.sight = 0.0, 140.0

    def _x(self, z: float) -> float:
        return self.x(z) if callable(self.x) else self.x

    def shade(self, canvas: Canvas, z: float, seconds: float) -> None:
        x, (dx, dz) = self._x(z), (s * 1.7 * self.size for s in canvas.air.slope)
        if canvas.air.sun > 0:
            canvas.darken(
                [[x - 0.2, z], [x + 0.2, z], [x + dx + 0.15, z + dz], [x + dx - 0.15, z + dz]], 0.45 * canvas.air.sun
            )
        canvas.darken([[x - 0.25, z - 0.15], [x + 0.25, z - 0.15], [x + 0.25, z + 0.2], [x - 0.25, z + 0.2]], 0.35)

    def draw(self, canvas: Canvas, z: float, seconds: float) -> None:
        if z < NEAR:
            return
        if (
            abs(self._x(z) - canvas.camera.x + canvas.camera.bend / 2 * z * z)
            > canvas.camera.width / canvas.camera.focal * z / 2 + 1
        ):
            return  # out of view
        if canvas.camera.focal / z < 9:
            self._far(canvas, z)
            return
        stride = math.sin(seconds * 5.6 + self.phase)
        swing, lift = (0.3, 0.0) if self.sideways else (0.04, 0.07)
        for leg in (-1, 1):
            foot = (leg * (0.02 if self.sideways else 0.1) + leg * swing * stride, max(0.0, leg * stride) * lift)
            hip = (leg * (0.03 if self.sideways else 0.09), 0.9)
            shade = 0.82 if leg < 0 else 1.0
            self._limb(canvas, z, hip, (foot[0], foot[1] + 0.08), 0.085, self.trousers * shade)
            self._limb(canvas, z, (foot[0], foot[1] + 0.1), (foot[0] + 0.04, foot[1]), 0.075, (30, 30, 32))
        wide = 0.15 if self.sideways else 0.22
        hem = 0.6 if self.long_coat else 0.86
        left = [(-wide * 0.5, 1.5), (-wide, 1.42), (-wide * 0.85, 1.1), (-wide * 0.9, hem)]
        torso = left + [(-x, y) for x, y in reversed(left)]
        self._shape(canvas, z, torso, self.coat)
        for arm in (-1, 1):
            hand = (arm * (wide + 0.05) - arm * swing * stride * 0.8, 0.88)
            self._limb(canvas, z, (arm * (wide - 0.02), 1.4), hand, 0.055, self.coat * 0.85)
        if self.bag:
            self._shape(
                canvas, z, [(wide, 0.8), (wide + 0.2, 0.8), (wide + 0.18, 1.05), (wide + 0.02, 1.05)], (40, 50, 80)
            )
        self._shape(canvas, z, [(0.115 * c, 1.63 + 0.14 * s) for c, s in _CIRCLE], self.skin)
        self._shape(canvas, z, [(0.125 * c, 1.68 + 0.11 * max(s, -0.2)) for c, s in _CIRCLE], self.hair)

    def _far(self, canvas: Canvas, z: float) -> None:
        """A figure of a few pixels."""
        self._shape(canvas, z, [(-0.16, 0), (0.16, 0), (0.18, 0.9), (-0.18, 0.9)], self.trousers)
        self._shape(canvas, z, [(-0.24, 0.8), (0.24, 0.8), (0.2, 1.48), (-0.2, 1.48)], self.coat)
        self._shape(canvas, z, [(-0.1, 1.48), (0.1, 1.48), (0.1, 1.78), (-0.1, 1.78)], self.skin)

    def _limb(
        self, canvas: Canvas, z: float, a: tuple[float, float], b: tuple[float, float], half: float, color: Color
    ) -> None:
        self._shape(
            canvas, z, [(a[0] - half, a[1]), (a[0] + half, a[1]), (b[0] + half, b[1]), (b[0] - half, b[1])], color
        )

    def _shape(self, canvas: Canvas, z: float, points: list[tuple[float, float]], color: Color) -> None:
        x = self._x(z)
        canvas.fill([[x + px * self.size, py * self.size, z] for px, py in points], color, PEDESTRIAN)
