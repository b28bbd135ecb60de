"""Lamp posts, traffic lights and signs."""

from __future__ import annotations

import math

import numpy as np

from edgeseg.synth.camera import Color
from edgeseg.synth.renderer import POLE, Renderer, Standing


class Pole(Standing):
    """A lamp post, traffic light or sign post; `arm` is the direction of the road, -1 or 1."""

    def __init__(self, kind: str, x: float, start: float, arm: int, color: Color, sign: int = 0):
        super().__init__(start)
        self.kind, self.x, self.arm, self.color, self.sign = kind, x, arm, color, sign
        self.height = {"lamp": 6.5, "light": 3.6, "sign": 2.7}[kind]

    def cast_shadow(self, renderer: Renderer, z: float, seconds: float) -> None:
        dx, dz = renderer.atmosphere.shadow_slope[0] * self.height, renderer.atmosphere.shadow_slope[1] * self.height
        shape = [[self.x - 0.07, z], [self.x + 0.07, z], [self.x + dx + 0.07, z + dz], [self.x + dx - 0.07, z + dz]]
        renderer.draw_shadow(shape, 0.4 * renderer.atmosphere.sun)

    def draw(self, renderer: Renderer, z: float, seconds: float) -> None:
        x, h, thick = self.x, self.height, 0.09 if self.kind == "lamp" else 0.07

        def box(x0: float, x1: float, y0: float, y1: float, color: Color, glow: bool = False) -> None:
            renderer.fill([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]], color, POLE, glow=glow)

        box(x - thick, x + thick, 0, h, self.color)
        if renderer.camera.focal / z > 12:
            box(x - thick, x - thick / 3, 0, h, np.asarray(self.color) * 1.3)
        if self.kind == "lamp":
            box(x - 0.13, x + 0.13, 0, 0.9, np.asarray(self.color) * 0.85)
            box(min(x, x + self.arm * 1.5), max(x, x + self.arm * 1.5), h - 0.1, h, self.color)
            night = renderer.atmosphere.night > 0.25
            color = (190, 232, 255) if night else (170, 176, 178)
            box(x + self.arm * 1.5 - 0.4, x + self.arm * 1.5 + 0.4, h - 0.2, h + 0.02, color, night)
        elif self.kind == "light":
            box(x - 0.2, x + 0.2, h - 1.0, h + 0.05, (34, 34, 32))
            now = int((self.start + seconds / 6) % 3)
            for i, color in enumerate(((60, 60, 240), (60, 190, 250), (120, 220, 70))):
                shown = np.array(color) * (1.0 if i == now else 0.25)
                renderer.fill(_disc(x, h - 0.14 - 0.32 * i, z, 0.12, 10), shown, POLE, glow=i == now)
        else:
            self._sign(renderer, z)

    def _sign(self, renderer: Renderer, z: float) -> None:
        y, rim = (
            self.height - 0.15,
            ((50, 46, 200), (50, 46, 200), (190, 96, 30), (190, 96, 30), (40, 200, 240))[self.sign],
        )
        corners = (3, 16, 16, 4, 4)[self.sign]
        renderer.fill(_disc(self.x, y, z, 0.42, corners), rim, POLE)
        if renderer.camera.focal / z < 8:
            return
        inner = rim if self.sign in (2, 3) else (228, 232, 234)
        renderer.fill(_disc(self.x, y, z, 0.28, corners), inner, POLE)
        if self.sign in (2, 3):
            renderer.fill(_disc(self.x, y, z, 0.16, 3), (236, 236, 236), POLE)


def _disc(x: float, y: float, z: float, radius: float, corners: int) -> list[list[float]]:
    turn = np.pi / 2 + (np.pi / 4 if corners == 4 else 0)
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False) + turn
    return [[x + radius * math.cos(a), y + radius * math.sin(a), z] for a in angle.tolist()]
