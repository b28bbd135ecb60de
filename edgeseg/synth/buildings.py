"""Buildings along a street: facades with windows and doors, gables and roofs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeseg.synth.atmosphere import Atmosphere
from edgeseg.synth.camera import FAR, Color, Floats
from edgeseg.synth.renderer import BUILDING, Renderer, Standing
from edgeseg.synth.texture import Rng, Texture, as_bytes, noise


@dataclass(frozen=True)
class Design:
    """A facade that several buildings share."""

    width: float  # meters
    height: float
    front: Texture  # at a fixed number of pixels a meter, with the light of the scene
    flank: Texture
    plaster: Color  # of the flank, on the average
    roof: Color
    pitched: bool


def design(rng: Rng, pixels: float, atmosphere: Atmosphere) -> Design:
    """A facade with rows of windows, a door and sometimes a shop, drawn at `pixels` per meter."""
    walls = (
        (78, 92, 150), (70, 84, 128), (168, 190, 206), (196, 204, 208), (150, 176, 204), (128, 132, 136), (92, 96, 102),
        (206, 182, 152), (214, 196, 176), (60, 58, 140), (132, 86, 58), (60, 62, 66), (120, 150, 130), (150, 160, 190),
    )  # fmt: skip
    wall = np.array(walls[rng.integers(len(walls))]) * rng.uniform(0.85, 1.1)
    floors, bays, bay = int(rng.integers(2, 7)), int(rng.integers(3, 7)), float(rng.uniform(2.2, 3.2))
    glass = rng.random() < 0.18
    size = (max(8, int((floors * 3.1 + 0.8) * pixels)), max(8, int(bays * bay * pixels)))
    front = np.empty((*size, 3), np.float32)
    front[:] = wall
    front *= 1 + 0.05 * noise(rng, *size, 2)[..., None] + 0.06 * noise(rng, *size, pixels * 2)[..., None]
    if rng.random() < 0.4:  # courses of brick or cladding
        front[:: max(2, int(pixels * 0.3))] *= 0.9
    flank = front.copy()[:, : size[1] * 2 // 3]
    flank *= 0.94
    shop = rng.random() < 0.5
    lit = _windows(rng, front, floors, bays, pixels, glass, shop)
    _windows(rng, flank, floors, 2, pixels, False, False)
    cornice = int(0.5 * pixels)
    front[:cornice] = wall * 0.8
    roof = np.array(((62, 66, 104), (74, 76, 84), (60, 60, 62))[rng.integers(3)])
    glow = np.linspace(0.05, 0.55, size[0], dtype=np.float32)[:, None, None] * (0.42, 0.6, 0.75) * atmosphere.night
    front *= np.array(atmosphere.ambient) + glow
    flank *= np.array(atmosphere.ambient) + 0.3 * glow
    for (x0, y0, x1, y1), color in lit:
        cell = front[y0:y1, x0:x1]
        cell += (np.array(color) - cell) * min(1.0, atmosphere.night * 1.4)
    return Design(
        bays * bay,
        floors * 3.1 + 0.8,
        Texture(as_bytes(front)),
        Texture(as_bytes(flank)),
        flank.mean((0, 1)),
        roof,
        rng.random() < 0.5,
    )


Box = tuple[int, int, int, int]  # left, top, right, bottom


def _windows(
    rng: Rng, wall: Floats, floors: int, bays: int, pixels: float, glass: bool, shop: bool
) -> list[tuple[Box, Color]]:
    """Draw windows and a door into the wall; returns the boxes and colors of those that are lit by night."""
    frame, pane = rng.uniform(0.6, 1.5), np.array((96, 82, 70)) * rng.uniform(0.4, 1.5)
    usual = (0.94, 0.9, 0.2) if glass else (rng.uniform(0.36, 0.62), rng.uniform(0.45, 0.68), 0.8)
    lit: list[tuple[Box, Color]] = []
    door = int(rng.integers(bays))
    edge = max(1, int(0.08 * pixels))
    for storey in range(floors - 1, -1, -1):
        for bay in range(bays):
            display, entrance = storey == 0 and shop, storey == 0 and bay == door
            shape = (0.86, 0.78, 0.25) if display else usual
            bay_on_wall = (bay / bays, bays, pixels)
            box = _door(wall, *bay_on_wall) if entrance else _window(wall, storey, *bay_on_wall, shape)
            x0, y0, x1, y1 = box
            wall[max(y0 - edge, 0) : y1 + edge, max(x0 - edge, 0) : x1 + edge] *= frame
            color = pane * rng.uniform(0.55, 1.3) * (0.5 if entrance else 1)
            wall[y0:y1, x0:x1] = color * np.linspace(1.35, 0.75, max(y1 - y0, 0))[:, None, None]
            middle = (x0 + x1) // 2
            wall[y0:y1, middle : middle + edge] *= 1.5 if frame > 1 else 0.7
            if rng.random() < (0.75 if display else 0.32):
                lit.append((box, np.array((120, 205, 250)) * rng.uniform(0.55, 1.0)))
    if shop:
        sign = ((60, 60, 190), (60, 130, 60), (170, 90, 40), (210, 210, 210), (40, 40, 40))[rng.integers(5)]
        top = max(int(wall.shape[0] - 3.2 * pixels), 0)
        wall[top : top + int(0.6 * pixels)] = sign
    return lit


def _window(
    wall: Floats, storey: int, start: float, bays: int, pixels: float, shape: tuple[float, float, float]
) -> Box:
    """`start`: share of the wall left of the bay; `shape`: the shares of bay and storey it fills, its sill in m."""
    (height, width), (wide, tall, sill) = wall.shape[:2], shape
    x0, x1 = (int((start + (0.5 + half * wide / 2) / bays) * width) for half in (-1, 1))
    bottom = int(height - (storey * 3.1 + sill) * pixels)
    return max(x0, 0), max(int(bottom - tall * 3.1 * pixels), 0), x1, bottom


def _door(wall: Floats, start: float, bays: int, pixels: float) -> Box:
    height, width = wall.shape[:2]
    middle = (start + 0.5 / bays) * width
    return max(int(middle - 0.6 * pixels), 0), max(int(height - 2.3 * pixels), 0), int(middle + 0.6 * pixels), height


class Building(Standing):
    """A building with its facade along the street, from `start` on."""

    def __init__(self, design: Design, side: int, start: float, front: float, exposed: bool):
        super().__init__(start)
        self.design, self.side, self.front, self.exposed = design, side, front, exposed
        self.depth, self.visible_range = design.width, FAR

    def cast_shadow(self, renderer: Renderer, z: float, seconds: float) -> None:
        x, (dx, dz), height = self.side * self.front, renderer.atmosphere.shadow_slope, self.design.height
        if dx * self.side < 0:
            end = z + self.design.width
            shape = [[x, z], [x, end], [x + dx * height, end + dz * height], [x + dx * height, z + dz * height]]
            renderer.draw_shadow(shape, 0.45 * renderer.atmosphere.sun)

    def draw(self, renderer: Renderer, z: float, seconds: float) -> None:
        side, d = self.side, self.design
        x, h, end, back = side * self.front, d.height, z + d.width, side * (self.front + 12)
        if d.pitched:
            ridge = side * (self.front + 3.5)
            roof = [[x, h, z], [x, h, end], [ridge, h + 2.6, end], [ridge, h + 2.6, z]]
            renderer.fill(roof, np.asarray(d.roof) * renderer.atmosphere.face_brightness(-side, 0), BUILDING)
        if self.exposed:
            wall = np.array([[x, h, z], [back, h, z], [back, 0, z], [x, 0, z]], float)
            if d.pitched:
                gable = [[x, h, z], [side * (self.front + 3.5), h + 2.6, z], [side * (self.front + 7), h, z]]
                renderer.fill(
                    gable,
                    np.asarray(d.plaster)
                    * renderer.atmosphere.face_brightness(0, -1)
                    / np.array(renderer.atmosphere.ambient),
                    BUILDING,
                )
            renderer.texture(d.flank, wall, BUILDING, renderer.atmosphere.face_brightness(0, -1))
        wall = np.array([[x, h, z], [x, h, end], [x, 0, end], [x, 0, z]], float)
        renderer.texture(d.front, wall, BUILDING, renderer.atmosphere.face_brightness(-side, 0))
