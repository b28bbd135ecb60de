"""Painting a street in perspective, always into the image and the class map with one and the same geometry.

World coordinates are meters: x to the right of the street's axis, y up from the ground, z forward *from the camera*.
Farther things are painted first (painter's algorithm), so that what is seen and what is labeled agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeseg.images import Image

ROAD, PAVEMENT, SKY, BUILDING, TREE, POLE, CAR, PEDESTRIAN = range(8)

Color = Sequence[float] | NDArray[np.floating]  # blue, green, red; 0..255
Floats = NDArray[np.floating]
NEAR = 0.6  # meters: nothing nearer is painted
FAR = 300.0
POOL = (0.38, 0.55, 0.68)  # the light under a street lamp
HEADLIGHT = (0.62, 0.66, 0.66)
_SHIFT = 4  # fractional bits of a polygon's corners


@dataclass(frozen=True)
class Camera:
    """A pin-hole camera that looks along the street; pitch is a shift of the horizon, `bend` is 1/radius in 1/m."""

    height: int
    width: int
    focal: float  # pixels
    horizon: float  # pixel row
    x: float  # meters right of the street's axis
    eye: float  # meters above the ground
    bend: float

    def project(self, points: ArrayLike) -> Floats:
        """[N, 3] meters with z >= NEAR -> [N, 2] pixels (column, row)."""
        x, y, z = np.asarray(points, np.float64).T
        scale = self.focal / z
        column = self.width / 2 + (x - self.x + self.bend / 2 * z * z) * scale
        return np.stack([column, self.horizon + (self.eye - y) * scale], 1)

    def ground(self, step: int = 1) -> tuple[Floats, Floats]:
        """World x [rows, W] and z [rows, 1] of the ground pixels below the horizon, every `step` pixels."""
        rows = np.arange(self.top, self.height, step, dtype=np.float32)[:, None] + 0.5 * step
        z = np.minimum(self.focal * self.eye / np.maximum(rows - self.horizon, 0.3), 2 * FAR).astype(np.float32)
        columns = np.arange(0, self.width, step, dtype=np.float32)[None] + 0.5 * step - self.width / 2
        x = columns * (z / self.focal) + (self.x - self.bend / 2 * z * z)
        return x.astype(np.float32), z

    @property
    def top(self) -> int:
        """The first row of ground."""
        return int(np.clip(np.ceil(self.horizon), 0, self.height - 1))


@dataclass
class Air:
    """Light and haze: what happens to a color on its way from a surface to the camera."""

    night: float
    haze: tuple[float, float, float]  # color
    density: float  # 1/m
    sun: float  # 0 overcast .. 1 hard shadows
    slope: tuple[float, float]  # how far a shadow runs in x and z for each meter of height
    camera_x: float
    lamps: list[tuple[float, float]] = field(default_factory=list)  # x and z of the street lamps, from the camera

    @cached_property
    def ambient(self) -> tuple[float, float, float]:
        """Light without lamps: 1 by day, bluish and weak by night."""
        return 0.15**self.night, 0.11**self.night, 0.09**self.night

    def light(self, x: ArrayLike, z: ArrayLike) -> Floats:
        """Light [..., 3] at points of the street: ambient, lamp pools, our own headlights."""
        x, z = np.broadcast_arrays(np.asarray(x, np.float32), np.asarray(z, np.float32))
        if self.night == 0:
            return np.ones((*x.shape, 3), np.float32)
        pool = np.zeros(x.shape, np.float32)
        for lamp_x, lamp_z in self.lamps:
            pool += np.exp(-(((x - lamp_x) / 4.5) ** 2) - ((z - lamp_z) / 5.5) ** 2, dtype=np.float32)
        ahead = np.exp(-np.maximum(z, 0) / 16 - ((x - self.camera_x) / (1.5 + 0.22 * np.abs(z))) ** 2, dtype=np.float32)
        extra = pool[..., None] * POOL + ahead[..., None] * HEADLIGHT
        return np.asarray(np.array(self.ambient) + self.night * extra, np.float32)

    def veil(self, z: ArrayLike) -> Floats:
        """The share of haze in front of something z meters away, 0..1."""
        return np.asarray(1 - np.exp(-self.density * np.maximum(np.asarray(z, np.float32), 0)), np.float32)

    def face(self, nx: float, nz: float) -> float:
        """How bright the sun makes an upright face with this outward normal."""
        length = float(np.hypot(*self.slope)) or 1.0
        facing = -(nx * self.slope[0] + nz * self.slope[1]) / length
        return 1.0 + self.sun * (0.12 if facing > 0 else 0.34) * facing - 0.06 * self.sun

    def seen(self, color: Color, x: float, z: float, glow: bool = False) -> tuple[float, float, float]:
        """A surface's color as the camera sees it; what glows needs no light. (Plain floats: it is called often.)"""
        b, g, r = color
        if not glow and self.night > 0:
            light = self._light_at(x, z)
            b, g, r = b * light[0], g * light[1], r * light[2]
        veil = (1 - math.exp(-self.density * z)) * (0.45 if glow else 1.0)
        hb, hg, hr = self.haze
        return min(b + (hb - b) * veil, 255.0), min(g + (hg - g) * veil, 255.0), min(r + (hr - r) * veil, 255.0)

    def _light_at(self, x: float, z: float) -> tuple[float, float, float]:
        """`light` of one point."""
        pool = 0.0
        for lamp_x, lamp_z in self.lamps:
            if abs(lamp_z - z) < 16:
                pool += math.exp(-(((x - lamp_x) / 4.5) ** 2) - ((z - lamp_z) / 5.5) ** 2)
        ahead = math.exp(-max(z, 0.0) / 16 - ((x - self.camera_x) / (1.5 + 0.22 * abs(z))) ** 2)
        b, g, r = ((a + self.night * (pool * p + ahead * h)) for a, p, h in zip(self.ambient, POOL, HEADLIGHT))
        return b, g, r


class Texture:
    """An image at every size up to its own, so that drawing it small costs little and does not flicker."""

    def __init__(self, image: Image):
        self.levels = [image]
        while min(self.levels[-1].shape[:2]) > 3:
            height, width = self.levels[-1].shape[:2]
            half = cv2.resize(self.levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
            self.levels.append(np.asarray(half, np.uint8))

    def at(self, width: int, height: int) -> Image:
        """The image at this size, or at its own where that is smaller."""
        height, width = (max(1, min(a, b)) for a, b in zip((height, width), self.levels[0].shape))
        level = next(i for i in reversed(self.levels) if i.shape[0] >= height and i.shape[1] >= width)
        return np.asarray(cv2.resize(level, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


@dataclass(frozen=True)
class Sprite:
    """A cut-out: colors [S, S, 3] and its shape [S, S], painted where > 127."""

    colors: Texture
    shape: Texture


class Canvas:
    """An image [H, W, 3] uint8 BGR and its class map [H, W] uint8, painted together."""

    def __init__(self, camera: Camera, air: Air, sky: Image):
        self.camera = camera
        self.air = air
        self.image = sky.copy()
        self.mask = np.full(sky.shape[:2], SKY, np.uint8)
        self.shadow = np.full((camera.height // 2 + 1, camera.width // 2 + 1), 255, np.uint8)  # at half size

    def fill(self, points: Sequence[Sequence[float]], color: Color, label: int, *, glow: bool = False) -> None:
        """A flat polygon, corners (x, y, z) in meters. (Plain floats: most of a frame's time is spent here.)"""
        if min(p[2] for p in points) < NEAR:
            points = _before_camera(np.asarray(points, np.float64)).tolist()
            if len(points) < 3:
                return
        camera, pixels, sum_x, sum_z = self.camera, [], 0.0, 0.0
        for x, y, z in points:
            scale = camera.focal / z
            column = camera.width / 2 + (x - camera.x + camera.bend / 2 * z * z) * scale
            pixels.append((column, camera.horizon + (camera.eye - y) * scale))
            sum_x, sum_z = sum_x + x, sum_z + z
        columns = [u for u, _ in pixels]
        if max(columns) >= 0 and min(columns) <= camera.width:
            self.polygon(pixels, self.air.seen(color, sum_x / len(points), sum_z / len(points), glow), label)

    def polygon(self, pixels: ArrayLike, color: Color, label: int) -> None:
        """A polygon [N, 2] in pixels, its color as seen."""
        corners = [_fixed(np.asarray(pixels, np.float64))]
        cv2.fillPoly(self.image, corners, tuple(color), cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(self.mask, corners, label, cv2.LINE_8, _SHIFT)

    def ground(self, shapes: Floats, color: Color, label: int) -> None:
        """Flat shapes on the ground, [N, corners, 2] of (x, z); the light is added later, for the whole ground."""
        pixels = self._on_ground(shapes)
        if len(pixels):
            corners = list(_fixed(pixels))
            cv2.fillPoly(self.image, corners, tuple(color), cv2.LINE_AA, _SHIFT)
            cv2.fillPoly(self.mask, corners, label, cv2.LINE_8, _SHIFT)

    def darken(self, shape: ArrayLike, strength: float) -> None:
        """A cast shadow on the ground, [N, 2] of (x, z); shadows do not add up and have no label."""
        if strength < 0.02:
            return
        for pixels in self._on_ground(np.asarray(shape, np.float64)[None]):
            cv2.fillConvexPoly(self.shadow, _fixed(pixels / 2), 255 * (1 - strength), cv2.LINE_AA, _SHIFT)

    def _on_ground(self, shapes: Floats) -> Floats:
        """[N, corners, 2] meters -> [M, corners, 2] pixels of those in sight."""
        shapes = np.asarray(shapes, np.float64).reshape(-1, *np.shape(shapes)[-2:])
        shapes = shapes[(shapes[..., 1].max(1) > NEAR) & (shapes[..., 1].min(1) < FAR)]
        x, z = shapes[..., 0], np.clip(shapes[..., 1], NEAR, FAR)
        pixels = self.camera.project(np.stack([x, np.zeros_like(x), z], -1).reshape(-1, 3))
        return pixels.reshape(shapes.shape)

    def texture(self, texture: Texture, quad: Floats, label: int, gain: float = 1.0) -> None:
        """A texture on an upright rectangle, corners [4, 3]: left top, right top, right bottom, left bottom.

        The texture carries its own light, so that lit windows stay bright; haze is added for each column's depth.
        """
        z0, z1 = float(quad[0, 2]), float(quad[1, 2])
        if max(z0, z1) <= NEAR:
            return
        start = max(0.0, (NEAR - z0) / (z1 - z0)) if z0 < z1 else 0.0  # the part behind the camera is cut off
        end = min(1.0, (z0 - NEAR) / (z0 - z1)) if z1 < z0 else 1.0
        left, right = quad[[0, 3]], quad[[1, 2]]
        a, b = left + start * (right - left), left + end * (right - left)
        pixels = self.camera.project(np.stack([a[0], b[0], b[1], a[1]]))
        box = self._box(pixels)
        if box is None:
            return
        wide = int(np.ptp(pixels[:, 0]) / max(end - start, 0.01))
        small = texture.at(wide, int(np.abs(pixels[:2, 1] - pixels[:1:-1, 1]).max()))
        across = small.shape[1]
        small = small[:, int(start * across) : max(int(end * across), int(start * across) + 1)]
        self._stamp(self._as_seen(small, a[0, 2], b[0, 2], gain), pixels, box, label)

    def sprite(self, sprite: Sprite, base: Sequence[float], size: tuple[float, float], label: int) -> None:
        """A cut-out facing us, given the middle of its foot (x, y, z) and its width and height in meters."""
        x, _, z = base
        if z < NEAR:
            return
        scale = self.camera.focal / z
        (u, v), wide, tall = self.camera.project([base])[0], size[0] * scale, size[1] * scale
        left, top = u - wide / 2, v - tall
        box = self._box(np.array([[left, top], [left + wide, v]]))
        if box is None:
            return
        colors, shape = (t.at(math.ceil(wide), math.ceil(tall)) for t in (sprite.colors, sprite.shape))
        veil = float(self.air.veil(z))
        light = self.air.light(x, z) * (1 - veil)
        colors = np.clip(colors * light + np.array(self.air.haze, np.float32) * veil, 0, 255).astype(np.uint8)
        x0, y0, x1, y1 = box
        steps = wide / colors.shape[1], tall / colors.shape[0]
        matrix = np.array([[steps[0], 0, left - x0], [0, steps[1], top - y0]])
        stamp = cv2.warpAffine(colors, matrix, (x1 - x0, y1 - y0), borderMode=cv2.BORDER_REPLICATE)
        where = cv2.warpAffine(shape, matrix, (x1 - x0, y1 - y0)) > 127
        cv2.copyTo(stamp, where.astype(np.uint8), self.image[y0:y1, x0:x1])
        self.mask[y0:y1, x0:x1][where] = label

    def _box(self, pixels: Floats) -> tuple[int, int, int, int] | None:
        x0, y0 = np.maximum(np.floor(pixels.min(0)), 0).astype(int).tolist()
        x1, y1 = np.minimum(np.ceil(pixels.max(0)) + 1, (self.camera.width, self.camera.height)).astype(int).tolist()
        return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None

    def _as_seen(self, texture: Image, z0: float, z1: float, gain: float) -> Image:
        """The texture with the light and haze of its columns, whose depth runs from z0 to z1."""
        z = np.linspace(z0, z1, texture.shape[1], dtype=np.float32)[None, :, None]
        veil = self.air.veil(z)
        light = gain * (1 - veil) * (1 + self.air.night * 1.2 * np.exp(-np.maximum(z, 0) / 12))
        return np.clip(texture * light + veil * np.array(self.air.haze, np.float32), 0, 255).astype(np.uint8)

    def _stamp(self, texture: Image, pixels: Floats, box: tuple[int, int, int, int], label: int) -> None:
        x0, y0, x1, y1 = box
        tall, wide = texture.shape[:2]
        source = np.array([[0, 0], [wide, 0], [wide, tall], [0, tall]], np.float32)
        target = (pixels - (x0, y0)).astype(np.float32)
        where = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillConvexPoly(where, _fixed(target), 1, cv2.LINE_8, _SHIFT)
        matrix = cv2.getPerspectiveTransform(source, target)
        warped = cv2.warpPerspective(texture, matrix, (x1 - x0, y1 - y0), borderMode=cv2.BORDER_REPLICATE)
        cv2.copyTo(warped, where, self.image[y0:y1, x0:x1])
        self.mask[y0:y1, x0:x1][where > 0] = label


def _fixed(pixels: Floats) -> NDArray[np.int32]:
    # A pixel's center is at +0.5 here and at 0 in OpenCV.
    return np.asarray(((pixels - 0.5) * (1 << _SHIFT)).round(), np.int32)


def _before_camera(points: Floats) -> Floats:
    """Clip a polygon [N, 3] at z = NEAR (Sutherland-Hodgman)."""
    inside = points[:, 2] >= NEAR
    if inside.all():
        return points
    kept: list[Floats] = []
    for i in range(len(points)):
        a, b = points[i - 1], points[i]
        if inside[i - 1] != inside[i]:
            kept.append(a + (NEAR - a[2]) / (b[2] - a[2]) * (b - a))
        if inside[i]:
            kept.append(b)
    return np.array(kept).reshape(-1, 3)
