"""Painting a street in perspective, always into the image and the class map with one and the same geometry.

World coordinates are metres: x to the right of the street's axis, y up from the ground, z forward *from the camera*.
Farther things are painted first (painter's algorithm), so that what is seen and what is labelled agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeseg.data.images import Image

ROAD, PAVEMENT, SKY, BUILDING, TREE, POLE, CAR, PEDESTRIAN = range(8)

Colour = Sequence[float] | NDArray[np.floating]  # blue, green, red; 0..255
Floats = NDArray[np.floating]
NEAR = 0.6  # metres: nothing nearer is painted
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
    x: float  # metres right of the street's axis
    eye: float  # metres above the ground
    bend: float

    def project(self, points: ArrayLike) -> Floats:
        """[N, 3] metres with z >= NEAR -> [N, 2] pixels (column, row)."""
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
    """Light and haze: what happens to a colour on its way from a surface to the camera."""

    night: float
    haze: tuple[float, float, float]  # colour
    density: float  # 1/m
    sun: float  # 0 overcast .. 1 hard shadows
    slope: tuple[float, float]  # how far a shadow runs in x and z for each metre of height
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
        """The share of haze in front of something z metres away, 0..1."""
        return np.asarray(1 - np.exp(-self.density * np.maximum(np.asarray(z, np.float32), 0)), np.float32)

    def face(self, nx: float, nz: float) -> float:
        """How bright the sun makes an upright face with this outward normal."""
        length = float(np.hypot(*self.slope)) or 1.0
        facing = -(nx * self.slope[0] + nz * self.slope[1]) / length
        return 1.0 + self.sun * (0.12 if facing > 0 else 0.34) * facing - 0.06 * self.sun

    def seen(self, colour: Colour, x: float, z: float, glow: bool = False) -> tuple[float, float, float]:
        """A surface's colour as the camera sees it; what glows needs no light. (Plain floats: it is called often.)"""
        b, g, r = colour
        if not glow and self.night > 0:
            light = self._light_at(x, z)
            b, g, r = b * light[0], g * light[1], r * light[2]
        veil = (1 - math.exp(-self.density * max(z, 0.0))) * (0.45 if glow else 1.0)
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


class Canvas:
    """An image [H, W, 3] uint8 BGR and its class map [H, W] uint8, painted together."""

    def __init__(self, camera: Camera, air: Air, sky: Image):
        self.camera = camera
        self.air = air
        self.image = sky.copy()
        self.mask = np.full(sky.shape[:2], SKY, np.uint8)
        self.shadow = np.full((camera.height // 2 + 1, camera.width // 2 + 1), 255, np.uint8)  # at half size

    def fill(self, points: Sequence[Sequence[float]], colour: Colour, label: int, *, glow: bool = False) -> None:
        """A flat polygon, corners (x, y, z) in metres. (Plain floats: most of a frame's time is spent here.)"""
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
            self.polygon(pixels, self.air.seen(colour, sum_x / len(points), sum_z / len(points), glow), label)

    def polygon(self, pixels: ArrayLike, colour: Colour, label: int) -> None:
        """A polygon [N, 2] in pixels, its colour as seen."""
        corners = [_fixed(np.asarray(pixels, np.float64))]
        cv2.fillPoly(self.image, corners, tuple(colour), cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(self.mask, corners, label, cv2.LINE_8, _SHIFT)

    def ground(self, polygons: Sequence[ArrayLike], colour: Colour, label: int) -> None:
        """Flat shapes on the ground, each [N, 2] of (x, z); the light is added later, for the whole ground."""
        corners = []
        for shape in polygons:
            pixels = self._on_ground(shape)
            if pixels is not None:
                corners.append(_fixed(pixels))
        if corners:
            cv2.fillPoly(self.image, corners, tuple(colour), cv2.LINE_AA, _SHIFT)
            cv2.fillPoly(self.mask, corners, label, cv2.LINE_8, _SHIFT)

    def darken(self, shape: ArrayLike, strength: float) -> None:
        """A cast shadow on the ground, [N, 2] of (x, z); shadows do not add up and have no label."""
        pixels = self._on_ground(shape)
        if pixels is not None:
            cv2.fillConvexPoly(self.shadow, _fixed(pixels / 2), 255 * (1 - strength), cv2.LINE_AA, _SHIFT)

    def _on_ground(self, shape: ArrayLike) -> Floats | None:
        points = np.array(shape, np.float64)
        z = points[:, 1]
        if z.max() <= NEAR or z.min() >= FAR:
            return None
        np.clip(z, NEAR, FAR, out=z)
        return self.camera.project(np.stack([points[:, 0], np.zeros(len(z)), z], 1))

    def texture(self, texture: Image, quad: Floats, label: int, gain: float = 1.0) -> None:
        """A texture on an upright rectangle, corners [4, 3]: left top, right top, right bottom, left bottom.

        The texture carries its own light, so that lit windows stay bright; haze is added for each column's depth.
        """
        (left, right), across = (quad[0, 2], quad[1, 2]), texture.shape[1]
        if max(left, right) <= NEAR:
            return
        quad = quad.copy()
        for near, other in ((0, 1), (1, 0)):  # cut off what lies behind the camera
            if quad[near, 2] < NEAR:
                share = (NEAR - quad[near, 2]) / (quad[other, 2] - quad[near, 2])
                cut = int(share * across)
                texture = texture[:, cut:] if near == 0 else texture[:, : across - cut]
                for a, b in ((near, other), (3 - near, 3 - other)):
                    quad[a] += share * (quad[b] - quad[a])
        if texture.shape[1] < 1:
            return
        pixels = self.camera.project(quad)
        box = self._box(pixels)
        if box is None:
            return
        z = np.linspace(quad[0, 2], quad[1, 2], 16)
        self._stamp(self._as_seen(texture, pixels, z, gain), pixels, box, label)

    def sprite(self, colours: Image, shape: Image, base: ArrayLike, size: tuple[float, float], label: int) -> None:
        """A cut-out facing us: colours [S, S, 3], shape [S, S] (painted where > 127), its foot's middle and its size (m)."""
        x, y, z = np.asarray(base, np.float64)
        if z < NEAR:
            return
        (width, height), scale = size, self.camera.focal / z
        u, v = self.camera.project([[x, y, z]])[0]
        left, top, wide, tall = u - width * scale / 2, v - height * scale, width * scale, height * scale
        box = self._box(np.array([[left, top], [left + wide, v]]))
        if box is None:
            return
        target = max(1, min(round(wide), colours.shape[1])), max(1, min(round(tall), colours.shape[0]))
        colours = np.asarray(cv2.resize(colours, target, interpolation=cv2.INTER_AREA))
        shape = np.asarray(cv2.resize(shape, target, interpolation=cv2.INTER_AREA))
        light, veil = self.air.light(x, z), float(self.air.veil(z))
        colours = (
            np.asarray(colours * (light * (1 - veil)) + np.array(self.air.haze) * veil).clip(0, 255).astype(np.uint8)
        )
        x0, y0, x1, y1 = box
        matrix = np.array([[wide / target[0], 0, left - x0], [0, tall / target[1], top - y0]], np.float32)
        stamp = cv2.warpAffine(colours, matrix, (x1 - x0, y1 - y0), borderMode=cv2.BORDER_REPLICATE)
        where = cv2.warpAffine(shape, matrix, (x1 - x0, y1 - y0)) > 127
        self.image[y0:y1, x0:x1][where] = stamp[where]
        self.mask[y0:y1, x0:x1][where] = label

    def _box(self, pixels: Floats) -> tuple[int, int, int, int] | None:
        x0, y0 = np.maximum(np.floor(pixels.min(0)), 0).astype(int).tolist()
        x1, y1 = np.minimum(np.ceil(pixels.max(0)) + 1, (self.camera.width, self.camera.height)).astype(int).tolist()
        return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None

    def _as_seen(self, texture: Image, pixels: Floats, z: Floats, gain: float) -> Image:
        """The texture at about its size on the screen, with the light and haze of each column's depth."""
        wide = max(1, min(texture.shape[1], int(np.ptp(pixels[:, 0]))))
        tall = max(1, min(texture.shape[0], int(np.abs(pixels[[0, 1], 1] - pixels[[3, 2], 1]).max())))
        small = np.asarray(cv2.resize(texture, (wide, tall), interpolation=cv2.INTER_AREA))
        z = np.interp(np.linspace(0, 1, wide), np.linspace(0, 1, len(z)), z)
        veil = self.air.veil(z)[None, :, None]
        head = 1 + self.air.night * 1.2 * np.exp(-np.maximum(z, 0) / 12)[None, :, None]
        return (
            np.asarray(small * (gain * head * (1 - veil)) + np.array(self.air.haze) * veil)
            .clip(0, 255)
            .astype(np.uint8)
        )

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
    # A pixel's centre is at +0.5 here and at 0 in OpenCV.
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
