"""Light and haze between the objects of a street and the camera."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from edgeseg.synth.camera import Color, Floats

LAMP_LIGHT = (0.38, 0.55, 0.68)  # blue, green, red under a street lamp
HEADLIGHT = (0.62, 0.66, 0.66)


@dataclass
class Atmosphere:
    """Light and haze: what happens to a color on its way from a surface to the camera."""

    night: float
    haze: tuple[float, float, float]  # color
    density: float  # 1/m
    sun: float  # 0 overcast .. 1 hard shadows
    shadow_slope: tuple[float, float]  # how far a shadow runs in x and z for each meter of height
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
        extra = pool[..., None] * LAMP_LIGHT + ahead[..., None] * HEADLIGHT
        return np.asarray(np.array(self.ambient) + self.night * extra, np.float32)

    def haze_share(self, z: ArrayLike) -> Floats:
        """The share of haze in front of something z meters away, 0..1."""
        return np.asarray(1 - np.exp(-self.density * np.maximum(np.asarray(z, np.float32), 0)), np.float32)

    def face_brightness(self, nx: float, nz: float) -> float:
        """How bright the sun makes an upright face with this outward normal."""
        length = float(np.hypot(*self.shadow_slope)) or 1.0
        facing = -(nx * self.shadow_slope[0] + nz * self.shadow_slope[1]) / length
        return 1.0 + self.sun * (0.12 if facing > 0 else 0.34) * facing - 0.06 * self.sun

    def apparent_color(self, color: Color, x: float, z: float, glow: bool = False) -> tuple[float, float, float]:
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
        b, g, r = ((a + self.night * (pool * p + ahead * h)) for a, p, h in zip(self.ambient, LAMP_LIGHT, HEADLIGHT))
        return b, g, r
