"""From the rendered image to a photograph: blur, vignette, exposure, color cast, noise, compression."""

from __future__ import annotations

import cv2
import numpy as np

from edgeseg.images import Image
from edgeseg.synth.texture import Rng


class Lens:
    """The optics and the sensor of one camera, drawn from `rng`."""

    def __init__(self, rng: Rng, height: int, width: int, night: float):
        self.blur = float(rng.uniform(0.35, 0.75)) * max(1.0, width / 900)
        exposure, cast = rng.uniform(0.82, 1.15), rng.uniform(-0.07, 0.07)
        gamma = rng.uniform(0.88, 1.15) * (1 - 0.12 * night)
        tone = np.linspace(0, 1, 256)[:, None] ** gamma * exposure * (1 + cast * np.array([1, 0, -1]))
        self.table = np.clip(tone * 255, 0, 255).astype(np.uint8).reshape(1, 256, 3)
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
        dark = 1 - rng.uniform(0, 0.16) * (x * x + y * y)
        self.vignette = np.repeat(dark[..., None], 3, 2).astype(np.float32)
        self.noise = float(rng.uniform(1, 4)) + 6 * night
        grain = rng.standard_normal((height + 64, width + 64, 3), np.float32) * self.noise
        self.grain = grain.round().clip(-127, 127).astype(np.int16)
        self.quality = int(rng.integers(55, 95)) if rng.random() < 0.5 else 0
        self.night = night

    def take(self, image: Image, rng: Rng) -> Image:
        height, width = image.shape[:2]
        if self.night > 0:
            image = self._bloom(image)
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), self.blur))
        image = np.asarray(cv2.multiply(image, self.vignette, dtype=cv2.CV_8U))
        image = np.asarray(cv2.LUT(image, self.table))
        y, x = rng.integers(64, size=2)
        image = np.asarray(cv2.add(image, self.grain[y : y + height, x : x + width], dtype=cv2.CV_8U))
        if self.quality:
            data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1]
            image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
        return np.asarray(image, np.uint8)

    def _bloom(self, image: Image) -> Image:
        """Light spills from what is brighter than the sensor can hold."""
        height, width = image.shape[:2]
        small = cv2.resize(image, (max(1, width // 4), max(1, height // 4)), interpolation=cv2.INTER_AREA)
        excess = np.clip((np.asarray(small, np.float32) - 150) * 1.6, 0, 255)
        spill = cv2.resize(cv2.GaussianBlur(excess, (0, 0), width / 160), (width, height))
        return np.asarray(cv2.add(image, spill, dtype=cv2.CV_8U), np.uint8)
