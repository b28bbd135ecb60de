"""People who walk along a street or across it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgeseg.synth.camera import NEAR, Color
from edgeseg.synth.renderer import PEDESTRIAN, UNIT_CIRCLE, Path, Renderer
from edgeseg.synth.texture import Rng

SKIN: tuple[Color, ...] = ((150, 178, 222), (112, 146, 196), (70, 96, 140), (50, 66, 96))
CLOTHES: tuple[Color, ...] = (
    (50, 46, 44), (120, 70, 40), (60, 60, 150), (90, 92, 94), (40, 90, 60), (180, 186, 190), (30, 140, 200),
    (130, 60, 120), (96, 110, 140), (150, 140, 60), (70, 60, 58),
)  # fmt: skip


class Pedestrian:
    """Someone walking along (`x` fixed) or across the street (`x` a function of the distance ahead)."""

    def __init__(self, rng: Rng, path: Path, x: float | Callable[[float], float], sideways: bool):
        self.position, self.x, self.sideways = path, x, sideways
        self.size = float(rng.uniform(0.62, 0.75)) if rng.random() < 0.15 else float(rng.uniform(0.9, 1.08))
        self.coat, self.trousers = (np.array(CLOTHES[rng.integers(len(CLOTHES))]) * rng.uniform(0.7, 1.2) for _ in "ab")
        self.skin = SKIN[rng.integers(len(SKIN))]
        self.hair = ((24, 26, 30), (40, 60, 84), (90, 130, 160), (120, 120, 122))[rng.integers(4)]
        self.long_coat, self.bag, self.phase = rng.random() < 0.3, rng.random() < 0.35, float(rng.uniform(0, 6))
        self.depth, self.visible_range = 0.0, 140.0

    def _x(self, z: float) -> float:
        return self.x(z) if callable(self.x) else self.x

    def cast_shadow(self, renderer: Renderer, z: float, seconds: float) -> None:
        x, (dx, dz) = self._x(z), (s * 1.7 * self.size for s in renderer.atmosphere.shadow_slope)
        if renderer.atmosphere.sun > 0:
            renderer.draw_shadow(
                [[x - 0.2, z], [x + 0.2, z], [x + dx + 0.15, z + dz], [x + dx - 0.15, z + dz]],
                0.45 * renderer.atmosphere.sun,
            )
        renderer.draw_shadow(
            [[x - 0.25, z - 0.15], [x + 0.25, z - 0.15], [x + 0.25, z + 0.2], [x - 0.25, z + 0.2]], 0.35
        )

    def draw(self, renderer: Renderer, z: float, seconds: float) -> None:
        if z < NEAR:
            return
        if (
            abs(self._x(z) - renderer.camera.x + renderer.camera.bend / 2 * z * z)
            > renderer.camera.width / renderer.camera.focal * z / 2 + 1
        ):
            return  # out of view
        if renderer.camera.focal / z < 9:
            self._far(renderer, z)
            return
        stride = math.sin(seconds * 5.6 + self.phase)
        swing, lift = (0.3, 0.0) if self.sideways else (0.04, 0.07)
        for leg in (-1, 1):
            foot = (leg * (0.02 if self.sideways else 0.1) + leg * swing * stride, max(0.0, leg * stride) * lift)
            hip = (leg * (0.03 if self.sideways else 0.09), 0.9)
            shade = 0.82 if leg < 0 else 1.0
            self._limb(renderer, z, hip, (foot[0], foot[1] + 0.08), 0.085, self.trousers * shade)
            self._limb(renderer, z, (foot[0], foot[1] + 0.1), (foot[0] + 0.04, foot[1]), 0.075, (30, 30, 32))
        wide = 0.15 if self.sideways else 0.22
        hem = 0.6 if self.long_coat else 0.86
        left = [(-wide * 0.5, 1.5), (-wide, 1.42), (-wide * 0.85, 1.1), (-wide * 0.9, hem)]
        torso = left + [(-x, y) for x, y in reversed(left)]
        self._shape(renderer, z, torso, self.coat)
        for arm in (-1, 1):
            hand = (arm * (wide + 0.05) - arm * swing * stride * 0.8, 0.88)
            self._limb(renderer, z, (arm * (wide - 0.02), 1.4), hand, 0.055, self.coat * 0.85)
        if self.bag:
            self._shape(
                renderer, z, [(wide, 0.8), (wide + 0.2, 0.8), (wide + 0.18, 1.05), (wide + 0.02, 1.05)], (40, 50, 80)
            )
        self._shape(renderer, z, [(0.115 * c, 1.63 + 0.14 * s) for c, s in UNIT_CIRCLE], self.skin)
        self._shape(renderer, z, [(0.125 * c, 1.68 + 0.11 * max(s, -0.2)) for c, s in UNIT_CIRCLE], self.hair)

    def _far(self, renderer: Renderer, z: float) -> None:
        """A figure of a few pixels."""
        self._shape(renderer, z, [(-0.16, 0), (0.16, 0), (0.18, 0.9), (-0.18, 0.9)], self.trousers)
        self._shape(renderer, z, [(-0.24, 0.8), (0.24, 0.8), (0.2, 1.48), (-0.2, 1.48)], self.coat)
        self._shape(renderer, z, [(-0.1, 1.48), (0.1, 1.48), (0.1, 1.78), (-0.1, 1.78)], self.skin)

    def _limb(
        self, renderer: Renderer, z: float, a: tuple[float, float], b: tuple[float, float], half: float, color: Color
    ) -> None:
        self._shape(
            renderer, z, [(a[0] - half, a[1]), (a[0] + half, a[1]), (b[0] + half, b[1]), (b[0] - half, b[1])], color
        )

    def _shape(self, renderer: Renderer, z: float, points: list[tuple[float, float]], color: Color) -> None:
        x = self._x(z)
        renderer.fill([[x + px * self.size, py * self.size, z] for px, py in points], color, PEDESTRIAN)
