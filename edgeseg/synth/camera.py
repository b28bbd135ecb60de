"""The pin-hole camera of a street scene, and the types that its geometry is written in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Color = Sequence[float] | NDArray[np.floating]  # blue, green, red; 0..255
Floats = NDArray[np.floating]
NEAR = 0.6  # meters: nothing nearer is rendered
FAR = 300.0


@dataclass(frozen=True)
class Camera:
    """A pin-hole camera that looks along the street; pitch is a shift of the horizon, `bend` is 1/radius in 1/m."""

    height: int
    width: int
    focal: float  # pixels
    horizon: float  # pixel row
    x: float  # meters right of the street's axis
    elevation: float  # meters above the ground
    bend: float

    def project(self, points: ArrayLike) -> Floats:
        """[N, 3] meters with z >= NEAR -> [N, 2] pixels (column, row)."""
        x, y, z = np.asarray(points, np.float64).T
        scale = self.focal / z
        column = self.width / 2 + (x - self.x + self.bend / 2 * z * z) * scale
        return np.stack([column, self.horizon + (self.elevation - y) * scale], 1)

    def ground(self, step: int = 1) -> tuple[Floats, Floats]:
        """World x [rows, W] and z [rows, 1] of the ground pixels below the horizon, every `step` pixels."""
        rows = np.arange(self.top, self.height, step, dtype=np.float32)[:, None] + 0.5 * step
        z = np.minimum(self.focal * self.elevation / np.maximum(rows - self.horizon, 0.3), 2 * FAR).astype(np.float32)
        columns = np.arange(0, self.width, step, dtype=np.float32)[None] + 0.5 * step - self.width / 2
        x = columns * (z / self.focal) + (self.x - self.bend / 2 * z * z)
        return x.astype(np.float32), z

    @property
    def top(self) -> int:
        """The first row of ground."""
        return int(np.clip(np.ceil(self.horizon), 0, self.height - 1))
