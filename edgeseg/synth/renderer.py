"""Rendering a street in perspective, always into the image and the class map with one and the same geometry.

World coordinates are meters: x to the right of the street's axis, y up from the ground, z forward *from the camera*.
Farther objects are drawn first (painter's algorithm), so that what is seen and what is labeled agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeseg.images import Image
from edgeseg.synth.atmosphere import Atmosphere
from edgeseg.synth.camera import FAR, NEAR, Camera, Color, Floats
from edgeseg.synth.texture import Sprite, Texture

ROAD, PAVEMENT, SKY, BUILDING, TREE, POLE, CAR, PEDESTRIAN = range(8)
Path = Callable[[float], float]  # seconds -> meters along the street
_ANGLES = np.linspace(0, 2 * np.pi, 14, endpoint=False)
UNIT_CIRCLE = list(zip(np.cos(_ANGLES).tolist(), np.sin(_ANGLES).tolist()))
_SHIFT = 4  # fractional bits of a polygon's corners


class SceneObject(Protocol):
    """Something standing or moving in the street; z is the distance of its reference point from the camera."""

    depth: float  # meters by which its far end lies behind its reference point: farther ends are drawn first
    visible_range: float  # meters beyond which it is not drawn

    def position(self, seconds: float) -> float:
        """Meters along the street."""

    def cast_shadow(self, renderer: Renderer, z: float, seconds: float) -> None:
        """Cast its shadow."""

    def draw(self, renderer: Renderer, z: float, seconds: float) -> None: ...


class Standing:
    """A SceneObject that stands at `start` meters along the street."""

    depth, visible_range = 0.0, 160.0

    def __init__(self, start: float):
        self.start = start

    def position(self, seconds: float) -> float:
        return self.start

    def cast_shadow(self, renderer: Renderer, z: float, seconds: float) -> None:
        pass


class Renderer:
    """An image [H, W, 3] uint8 BGR and its class map [H, W] uint8, drawn together.

    `objects`: [H, W] uint16, what was drawn while `drawn` was which number; None where nobody asked for it.
    """

    def __init__(self, camera: Camera, atmosphere: Atmosphere, sky: Image, objects: bool = False):
        self.camera = camera
        self.atmosphere = atmosphere
        self.image = sky.copy()
        self.mask = np.full(sky.shape[:2], SKY, np.uint8)
        self.objects = np.zeros(sky.shape[:2], np.uint16) if objects else None
        self.drawn = 0
        self.shadow = np.full((camera.height // 2 + 1, camera.width // 2 + 1), 255, np.uint8)  # at half size

    def fill(self, points: Sequence[Sequence[float]], color: Color, label: int, *, glow: bool = False) -> None:
        """A flat polygon, corners (x, y, z) in meters. (Plain floats: most of a frame's time is spent here.)"""
        if min(p[2] for p in points) < NEAR:
            points = _clip_near(np.asarray(points, np.float64)).tolist()
            if len(points) < 3:
                return
        camera, pixels, sum_x, sum_z = self.camera, [], 0.0, 0.0
        for x, y, z in points:
            scale = camera.focal / z
            column = camera.width / 2 + (x - camera.x + camera.bend / 2 * z * z) * scale
            pixels.append((column, camera.horizon + (camera.elevation - y) * scale))
            sum_x, sum_z = sum_x + x, sum_z + z
        columns = [u for u, _ in pixels]
        if max(columns) >= 0 and min(columns) <= camera.width:
            self.polygon(
                pixels, self.atmosphere.apparent_color(color, sum_x / len(points), sum_z / len(points), glow), label
            )

    def polygon(self, pixels: ArrayLike, color: Color, label: int) -> None:
        """A polygon [N, 2] in pixels, its color as seen."""
        corners = [_fixed(np.asarray(pixels, np.float64))]
        cv2.fillPoly(self.image, corners, tuple(color), cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(self.mask, corners, label, cv2.LINE_8, _SHIFT)
        if self.objects is not None:
            cv2.fillPoly(self.objects, corners, self.drawn, cv2.LINE_8, _SHIFT)

    def ground(self, shapes: Floats, color: Color, label: int) -> None:
        """Flat shapes on the ground, [N, corners, 2] of (x, z); the light is added later, for the whole ground."""
        pixels = self._on_ground(shapes)
        if len(pixels):
            corners = list(_fixed(pixels))
            cv2.fillPoly(self.image, corners, tuple(color), cv2.LINE_AA, _SHIFT)
            cv2.fillPoly(self.mask, corners, label, cv2.LINE_8, _SHIFT)

    def draw_shadow(self, shape: ArrayLike, strength: float) -> None:
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
        small = texture.resized(wide, int(np.abs(pixels[:2, 1] - pixels[:1:-1, 1]).max()))
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
        colors, shape = (t.resized(math.ceil(wide), math.ceil(tall)) for t in (sprite.colors, sprite.shape))
        veil = float(self.atmosphere.haze_share(z))
        light = self.atmosphere.light(x, z) * (1 - veil)
        colors = np.clip(colors * light + np.array(self.atmosphere.haze, np.float32) * veil, 0, 255).astype(np.uint8)
        x0, y0, x1, y1 = box
        steps = wide / colors.shape[1], tall / colors.shape[0]
        matrix = np.array([[steps[0], 0, left - x0], [0, steps[1], top - y0]])
        stamp = cv2.warpAffine(colors, matrix, (x1 - x0, y1 - y0), borderMode=cv2.BORDER_REPLICATE)
        where = cv2.warpAffine(shape, matrix, (x1 - x0, y1 - y0)) > 127
        cv2.copyTo(stamp, where.astype(np.uint8), self.image[y0:y1, x0:x1])
        self._label(box, where, label)

    def _box(self, pixels: Floats) -> tuple[int, int, int, int] | None:
        x0, y0 = np.maximum(np.floor(pixels.min(0)), 0).astype(int).tolist()
        x1, y1 = np.minimum(np.ceil(pixels.max(0)) + 1, (self.camera.width, self.camera.height)).astype(int).tolist()
        return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None

    def _as_seen(self, texture: Image, z0: float, z1: float, gain: float) -> Image:
        """The texture with the light and haze of its columns, whose depth runs from z0 to z1."""
        z = np.linspace(z0, z1, texture.shape[1], dtype=np.float32)[None, :, None]
        veil = self.atmosphere.haze_share(z)
        light = gain * (1 - veil) * (1 + self.atmosphere.night * 1.2 * np.exp(-np.maximum(z, 0) / 12))
        return np.clip(texture * light + veil * np.array(self.atmosphere.haze, np.float32), 0, 255).astype(np.uint8)

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
        self._label(box, where > 0, label)

    def _label(self, box: tuple[int, int, int, int], where: NDArray[np.bool_], label: int) -> None:
        x0, y0, x1, y1 = box
        self.mask[y0:y1, x0:x1][where] = label
        if self.objects is not None:
            self.objects[y0:y1, x0:x1][where] = self.drawn


def _fixed(pixels: Floats) -> NDArray[np.int32]:
    # A pixel's center is at +0.5 here and at 0 in OpenCV.
    return np.asarray(((pixels - 0.5) * (1 << _SHIFT)).round(), np.int32)


def _clip_near(points: Floats) -> Floats:
    """Clip a polygon [N, 3] at z = NEAR (Sutherland-Hodgman)."""
    inside = points[:, 2] >= NEAR
    if inside.all():
        return points
    clipped: list[Floats] = []
    for i in range(len(points)):
        a, b = points[i - 1], points[i]
        if inside[i - 1] != inside[i]:
            clipped.append(a + (NEAR - a[2]) / (b[2] - a[2]) * (b - a))
        if inside[i]:
            clipped.append(b)
    return np.array(clipped).reshape(-1, 3)
