"""What stands still in a street: sky, ground, hedges, trees and poles; buildings.py has the houses."""

from __future__ import annotations

import math
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike

from edgeseg.images import Image
from edgeseg.synth.renderer import (
    BUILDING,
    FAR,
    PAVEMENT,
    POLE,
    ROAD,
    SKY,
    TREE,
    Air,
    Camera,
    Canvas,
    Color,
    Floats,
    Sprite,
    Texture,
)

Rng = np.random.Generator


class Thing(Protocol):
    """Something standing or moving in the street; z is the distance of its reference point from the camera."""

    reach: float  # meters by which its far end lies behind its reference point: farther reaches are painted first
    sight: float  # meters beyond which it is not painted

    def where(self, seconds: float) -> float:
        """Its place along the street, meters."""

    def shade(self, canvas: Canvas, z: float, seconds: float) -> None:
        """Cast its shadow."""

    def draw(self, canvas: Canvas, z: float, seconds: float) -> None: ...


def noise(rng: Rng, height: int, width: int, cell: float) -> Floats:
    """Smooth noise [height, width], mean 0, about -1..1, with blobs of `cell` pixels.

    Drawn from a child of `rng`, so that a scene is laid out alike at every image size.
    """
    rough = rng.spawn(1)[0].standard_normal((max(2, int(height / cell)), max(2, int(width / cell))), np.float32)
    return np.asarray(cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC))


def speckle(rng: Rng, size: int) -> Floats:
    """Noise [size, size] in several sizes of grain, which repeats without a seam."""
    total = np.zeros((size, size), np.float32)
    for cell, weight in ((1, 0.35), (4, 0.35), (16, 0.3), (64, 0.3)):
        rough = np.pad(rng.standard_normal((size // cell, size // cell), np.float32), 2, mode="wrap")
        wide = cv2.resize(rough, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
        total += weight * wide[2 * cell : 2 * cell + size, 2 * cell : 2 * cell + size]
    return total


def asas_bytes(image: Floats) -> Image:
    return np.clip(image, 0, 255).astype(np.uint8)


def as_bytes(image: Floats) -> Image:
    return np.clip(image, 0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ sky


def paint_sky(rng: Rng, camera: Camera, air: Air, skyline: Color) -> tuple[Image, Image]:
    """The sky with clouds and the far skyline, and its class map; neither moves (they are too far away)."""
    height, width, horizon = camera.height, camera.width, max(camera.horizon, 2.0)
    up = np.clip(1 - np.arange(height, dtype=np.float32) / horizon, 0, 1)[:, None, None]
    zenith = np.array(((214, 160, 105), (205, 178, 150), (196, 190, 184), (190, 140, 96))[rng.integers(4)])
    low = np.array(((236, 224, 208), (226, 222, 216), (206, 216, 232))[rng.integers(3)])
    sky = low + (zenith - low) * up**0.7
    clouds = sum(noise(rng, height, width * 2, height / n)[:, :width] * w for n, w in ((4, 0.5), (9, 0.35), (24, 0.2)))
    cover = np.clip((np.asarray(clouds) + rng.uniform(-0.5, 0.5)) * 1.6, 0, 1)[..., None] * np.clip(up * 4, 0.15, 1)
    sky = sky + (np.array([246, 246, 246]) * (0.86 + 0.1 * np.asarray(clouds)[..., None]) - sky) * cover * 0.85
    glow = np.array([40, 60, 78]) * (1 - up) ** 2 * air.night
    sky = sky * (np.array(air.ambient) * (1 - 0.55 * air.night)) + glow
    veil = 1 - np.exp(-air.density * 160 * (1 - 0.55 * up))
    canvas = Canvas(camera, air, np.clip(sky + (np.array(air.haze) - sky) * veil, 0, 255).astype(np.uint8))
    _skyline(rng, canvas, skyline)
    return canvas.image, canvas.mask


def _skyline(rng: Rng, canvas: Canvas, color: Color) -> None:
    camera, left = canvas.camera, -20.0
    unit = camera.focal / 260  # pixels of a meter, 260 m away
    foot = camera.horizon + camera.eye * unit + 1
    while left < camera.width:
        wide, tall = rng.uniform(8, 26) * unit, rng.uniform(6, 17) * unit
        right, top = left + wide, foot - tall
        tint = np.asarray(color) * rng.uniform(0.75, 1.15)
        if rng.random() < 0.4:
            steps = np.linspace(0, np.pi, 9)
            bumps = np.stack(
                [left + wide / 2 - wide * 0.6 * np.cos(steps), foot - tall * 0.6 * np.sin(steps) ** 0.6], 1
            )
            canvas.polygon(bumps, canvas.air.seen((52, 84, 70), 0, 260), TREE)
        else:
            box = np.array([[left, top], [right + 1, top], [right + 1, foot], [left, foot]])
            canvas.polygon(box, canvas.air.seen(tint, 0, 260), BUILDING)
        left = right


# ------------------------------------------------------------------------------------------------ ground


class Ground:
    """Road, kerbs and pavements with their markings, repeating every `period` meters."""

    def __init__(self, rng: Rng, camera: Camera, half: float, walk: float, period: float):
        self.camera, self.half, self.walk, self.period = camera, half, walk, period
        asphalt = ((98, 96, 94), (74, 72, 71), (122, 118, 114), (92, 92, 112), (84, 86, 84))
        paving = ((138, 142, 146), (112, 114, 116), (116, 126, 142), (100, 98, 97), (150, 152, 152), (98, 112, 138))
        self.asphalt = np.array(asphalt[rng.integers(5)]) * rng.uniform(0.85, 1.15)
        self.paving = np.array(paving[rng.integers(6)]) * rng.uniform(0.85, 1.1)
        self.paint = np.array([222, 226, 228]) * rng.uniform(0.8, 1.0)
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

    def paint_on(self, canvas: Canvas, at: float) -> None:
        """The flat colors and labels, with the camera `at` meters along the street."""
        half, walk, top = self.half, self.walk, self.camera.top
        foot = min(self.camera.height, int(self.camera.horizon + self.camera.eye * self.camera.focal / 260) + 1)
        canvas.mask[foot:] = PAVEMENT
        canvas.image[foot:] = np.clip(self.paving * 0.94, 0, 255).astype(np.uint8)
        below = canvas.mask[top:foot] == SKY
        canvas.mask[top:foot][below] = PAVEMENT
        for side in (-1, 1):
            self._strip(canvas, side * half, side * (half + walk), self.paving, PAVEMENT)
            self._strip(canvas, side * half, side * (half + 0.2), self.paving * 1.18, PAVEMENT)
        self._strip(canvas, -half, half, self.asphalt, ROAD)
        for side in (-1, 1):
            self._strip(canvas, side * (half - 0.3), side * half, self.asphalt * 0.84, ROAD)
        streets = [
            _rectangle(side * (half - 0.1), side * 70, z, z + end - start)
            for start, end, side in self.side_streets
            for z in self._near(start, at)
        ]
        canvas.ground(np.array(streets).reshape(-1, 4, 2), self.asphalt, ROAD)
        near = (self.patches[:, 2] - at + 30) % self.period - 30
        for tint in (0.82, 1.12):
            kept = (self.patches[:, 4] == tint) & (near < 120)
            x0, x1, _, long, _ = self.patches[kept].T
            spots = _rectangles(x0, x1, near[kept], near[kept] + long)
            canvas.ground(spots, np.clip(self.asphalt * tint, 0, 255), ROAD)
        canvas.ground(self._markings(at), self.paint, ROAD)

    def _near(self, start: float, at: float) -> list[float]:
        z = (start - at + 30) % self.period - 30
        return [z] if z < FAR * 0.6 else []

    def _strip(self, canvas: Canvas, x0: float, x1: float, color: Color, label: int) -> None:
        z = np.geomspace(1.0, FAR, 24 if self.camera.bend else 2)
        edge = np.stack([np.full(len(z), x0), z], 1), np.stack([np.full(len(z), x1), z], 1)[::-1]
        canvas.ground(np.concatenate(edge)[None], np.clip(color, 0, 255), label)

    def _markings(self, at: float) -> Floats:
        """Painted lines and zebra crossings, [N, 4, 2] of (x, z)."""
        half, zebras = self.half, np.array([z for zebra in self.zebras for z in self._near(zebra, at)])
        starts = np.arange(-(at % 9), 120, 9)
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

    def finish(self, canvas: Canvas, at: float) -> None:
        """Texture, shadows, light and haze on the whole ground, which has only flat colors so far."""
        top = self.camera.top
        image, road = canvas.image[top:], canvas.mask[top:] == ROAD
        across = np.mod(self._x * 64, 256).astype(np.float32)
        along = np.broadcast_to(np.mod((self._z + np.float32(at % 400.0)) * 64, 256).astype(np.float32), across.shape)
        both = [cv2.remap(t, across, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP) for t in self._tiles]
        fade = 1 / (1 + (self._z**2 / (self.camera.focal * self.camera.eye) / 0.12) ** 2)
        gain = 1 + (np.where(road, both[0], both[1]) - 1) * fade
        shadow = cv2.resize(cv2.GaussianBlur(canvas.shadow, (5, 5), 0), (self.camera.width, self.camera.height))[top:]
        gain *= shadow * np.float32(1 / 255)
        veil = canvas.air.veil(self._z)
        gain *= 1 - veil
        shaped = cv2.merge([gain, gain, gain])
        if canvas.air.night > 0:
            x, z = self.camera.ground(4)
            light = cv2.resize(canvas.air.light(x, z), (self.camera.width, len(image)))
            shaped = cv2.multiply(shaped, light)
        lit = np.asarray(cv2.multiply(image, shaped, dtype=cv2.CV_32F)) + (
            veil[..., None] * np.array(canvas.air.haze)
        ).astype(np.float32)
        far = canvas.mask[top:] > PAVEMENT  # the skyline: it is finished already
        lit[far] = image[far]
        canvas.image[top:] = np.clip(lit, 0, 255).astype(np.uint8)

    def mirror(self, canvas: Canvas) -> None:
        """A wet road reflects what stands above the horizon."""
        top = self.camera.top
        rows = np.clip(2 * top - np.arange(top, self.camera.height) - 1, 0, top)
        above = cv2.blur(canvas.image[rows], (5, max(3, self.camera.height // 18)))
        road = canvas.mask[top:] == ROAD
        mixed = cv2.addWeighted(canvas.image[top:], 1 - self.wet * 0.6, above, self.wet * 0.7, 0)
        cv2.copyTo(mixed, road.astype(np.uint8), canvas.image[top:])


def _rectangle(x0: float, x1: float, z0: float, z1: float) -> Floats:
    return np.array([[x0, z0], [x1, z0], [x1, z1], [x0, z1]])


def _rectangles(x0: ArrayLike, x1: ArrayLike, z0: ArrayLike, z1: ArrayLike) -> Floats:
    """[N, 4, 2]; numbers and arrays [N] may be mixed."""
    a, b, c, d = np.atleast_1d(*np.broadcast_arrays(x0, x1, z0, z1))
    return np.stack([np.stack([a, c], -1), np.stack([b, c], -1), np.stack([b, d], -1), np.stack([a, d], -1)], 1)


# ------------------------------------------------------------------------------------------------ plants and poles


class Hedge:
    """A hedge along the edge of a park."""

    def __init__(self, leaves: Texture, side: int, start: float, length: float, front: float, height: float):
        self.leaves, self.side, self.start, self.front, self.height = leaves, side, start, front, height
        self.reach, self.sight = length, 160.0

    def where(self, seconds: float) -> float:
        return self.start

    def shade(self, canvas: Canvas, z: float, seconds: float) -> None:
        pass

    def draw(self, canvas: Canvas, z: float, seconds: float) -> None:
        x, h, end, out = self.side * self.front, self.height, z + self.reach, self.side * (self.front + 1.2)
        canvas.fill([[x, h, z], [out, h, z], [out, 0, z], [x, 0, z]], (46, 74, 60), TREE)
        quad = np.array([[x, h, z], [x, h, end], [x, 0, end], [x, 0, z]], float)
        canvas.texture(self.leaves, quad, TREE, canvas.air.face(-self.side, 0))


def leaves(rng: Rng, pixels: float, air: Air) -> Texture:
    """A wall of leaves, 8 by 2 meters."""
    height, width = int(2 * pixels), int(8 * pixels)
    tint = np.array((44, 88, 66)) * rng.uniform(0.7, 1.2)
    mottled = 1 + 0.25 * noise(rng, height, width, 2) + 0.15 * noise(rng, height, width, pixels / 2)
    return Texture(as_bytes(tint * mottled[..., None] * np.linspace(1.1, 0.6, height)[:, None, None] * air.ambient))


def foliage(rng: Rng, size: int, sun_x: float) -> Sprite:
    """A trunk and a crown of many blobs, lighter towards the sun."""
    greens = ((48, 96, 74), (40, 74, 52), (58, 118, 104), (44, 92, 118), (34, 56, 44), (52, 110, 70))
    green = np.array(greens[rng.integers(len(greens))], float)
    colors, shape = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.uint8)
    bark = np.array((62, 74, 86)) * rng.uniform(0.6, 1.1)
    half, stem = size * rng.uniform(0.02, 0.03), int(size * 0.5)
    trunk = np.array([[0.5 - 0.6 * half / size, 0.3], [0.5 + 0.6 * half / size, 0.3], [0.5 + half / size, 1],
                      [0.5 - half / size, 1]])  # fmt: skip
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


class Tree:
    def __init__(self, foliage: Sprite, x: float, start: float, height: float, width: float):
        self.foliage, self.x, self.start, self.height, self.width = foliage, x, start, height, width
        self.reach, self.sight = 0.0, 160.0

    def where(self, seconds: float) -> float:
        return self.start

    def shade(self, canvas: Canvas, z: float, seconds: float) -> None:
        (dx, dz), middle = canvas.air.slope, self.height * 0.64
        angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        radius, x1, z1 = self.width * 0.4, self.x + dx * middle, z + dz * middle
        crown = np.stack([x1 + radius * np.cos(angle), z1 + radius * 1.2 * np.sin(angle)], 1)
        canvas.darken(crown, 0.45 * canvas.air.sun)
        stem = [[self.x - 0.15, z], [self.x + 0.15, z], [x1 + 0.1, z1], [x1 - 0.1, z1]]
        canvas.darken(stem, 0.45 * canvas.air.sun)

    def draw(self, canvas: Canvas, z: float, seconds: float) -> None:
        size = (self.width, self.height)
        canvas.sprite(self.foliage, (self.x, 0, z), size, TREE)


class Pole:
    """A lamp post, traffic light or sign post; `arm` is the direction of the road, -1 or 1."""

    def __init__(self, kind: str, x: float, start: float, arm: int, color: Color, sign: int = 0):
        self.kind, self.x, self.start, self.arm, self.color, self.sign = kind, x, start, arm, color, sign
        self.height = {"lamp": 6.5, "light": 3.6, "sign": 2.7}[kind]
        self.reach, self.sight = 0.0, 160.0

    def where(self, seconds: float) -> float:
        return self.start

    def shade(self, canvas: Canvas, z: float, seconds: float) -> None:
        dx, dz = canvas.air.slope[0] * self.height, canvas.air.slope[1] * self.height
        shape = [[self.x - 0.07, z], [self.x + 0.07, z], [self.x + dx + 0.07, z + dz], [self.x + dx - 0.07, z + dz]]
        canvas.darken(shape, 0.4 * canvas.air.sun)

    def draw(self, canvas: Canvas, z: float, seconds: float) -> None:
        x, h, thick = self.x, self.height, 0.09 if self.kind == "lamp" else 0.07

        def box(x0: float, x1: float, y0: float, y1: float, color: Color, glow: bool = False) -> None:
            canvas.fill([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]], color, POLE, glow=glow)

        box(x - thick, x + thick, 0, h, self.color)
        if canvas.camera.focal / z > 12:
            box(x - thick, x - thick / 3, 0, h, np.asarray(self.color) * 1.3)
        if self.kind == "lamp":
            box(x - 0.13, x + 0.13, 0, 0.9, np.asarray(self.color) * 0.85)
            box(min(x, x + self.arm * 1.5), max(x, x + self.arm * 1.5), h - 0.1, h, self.color)
            night = canvas.air.night > 0.25
            color = (190, 232, 255) if night else (170, 176, 178)
            box(x + self.arm * 1.5 - 0.4, x + self.arm * 1.5 + 0.4, h - 0.2, h + 0.02, color, night)
        elif self.kind == "light":
            box(x - 0.2, x + 0.2, h - 1.0, h + 0.05, (34, 34, 32))
            now = int((self.start + seconds / 6) % 3)
            for i, color in enumerate(((60, 60, 240), (60, 190, 250), (120, 220, 70))):
                shown = np.array(color) * (1.0 if i == now else 0.25)
                canvas.fill(_disc(x, h - 0.14 - 0.32 * i, z, 0.12, 10), shown, POLE, glow=i == now)
        else:
            self._sign(canvas, z)

    def _sign(self, canvas: Canvas, z: float) -> None:
        y, rim = (
            self.height - 0.15,
            ((50, 46, 200), (50, 46, 200), (190, 96, 30), (190, 96, 30), (40, 200, 240))[self.sign],
        )
        corners = (3, 16, 16, 4, 4)[self.sign]
        canvas.fill(_disc(self.x, y, z, 0.42, corners), rim, POLE)
        if canvas.camera.focal / z < 8:
            return
        inner = rim if self.sign in (2, 3) else (228, 232, 234)
        canvas.fill(_disc(self.x, y, z, 0.28, corners), inner, POLE)
        if self.sign in (2, 3):
            canvas.fill(_disc(self.x, y, z, 0.16, 3), (236, 236, 236), POLE)


def _disc(x: float, y: float, z: float, radius: float, corners: int) -> list[list[float]]:
    turn = np.pi / 2 + (np.pi / 4 if corners == 4 else 0)
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False) + turn
    return [[x + radius * math.cos(a), y + radius * math.sin(a), z] for a in angle.tolist()]
