"""What else cameras and weather do to a frame: hue, gamma, shadows, fog, rain, JPEG artifacts, and hidden parts.

Each function takes a float image [H, W, 3] in 0..255, RGB, and the largest strength, 0 for off, and draws its own
strength up to that, so that the frame as it is stays among the results.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.images import Image
from edgeseg.recipe import Settings

Floats = NDArray[np.float32]
FOG, RAIN = 220.0, 200.0  # gray levels
STREAKS = 0.004  # rain of strength 1: streaks per pixel
BEST_JPEG = 95


def distort(image: Floats, settings: Settings, random: np.random.Generator) -> Floats:
    """Light and weather, in the order in which they reach a camera. Draws nothing for what is off."""
    for change, strength in (
        (hue, settings.hue),
        (gamma, settings.gamma),
        (shadow, settings.shadow),
        (fog, settings.fog),
        (rain, settings.rain),
    ):
        if strength:
            image = change(image, strength, random)
    return image


def hue(image: Floats, degrees: float, random: np.random.Generator) -> Floats:
    """All hues turned by up to `degrees` either way."""
    hsv = cv2.cvtColor(image / np.float32(255), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(random.uniform(-degrees, degrees))) % 360
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(255)


def gamma(image: Floats, largest: float, random: np.random.Generator) -> Floats:
    """255 (v / 255)^g with ln g up to `largest` either way: as cameras expose and encode differently."""
    exponent = np.float32(np.exp(random.uniform(-largest, largest)))
    result: Floats = np.float32(255) * (np.clip(image, 0, 255) / np.float32(255)) ** exponent
    return result


def shadow(image: Floats, darkest: float, random: np.random.Generator) -> Floats:
    """A random quadrilateral, with a soft edge, darker by up to the share `darkest`."""
    height, width = image.shape[:2]
    corners = random.uniform(-0.2, 1.2, (4, 2)) * (width, height)
    hull = cv2.convexHull(corners.astype(np.int32))
    covered = np.zeros((height, width), np.float32)
    cv2.fillConvexPoly(covered, hull, (random.uniform(0, darkest),))
    covered = cv2.GaussianBlur(covered, (0, 0), max(1.0, min(height, width) / 50))  # type: ignore[assignment]
    result: Floats = image * (1 - covered[..., None])
    return result


def fog(image: Floats, thickest: float, random: np.random.Generator) -> Floats:
    """Koschmieder's law with one transmission t for the whole frame: t v + (1 - t) FOG, 1 - t up to `thickest`."""
    haze = np.float32(random.uniform(0, thickest))
    result: Floats = (1 - haze) * image + haze * np.float32(FOG)
    return result


def rain(image: Floats, densest: float, random: np.random.Generator) -> Floats:
    """Bright streaks of one slant, half transparent; up to STREAKS x `densest` per pixel."""
    height, width = image.shape[:2]
    count = int(random.uniform(0, densest) * STREAKS * height * width)
    length, slant = max(3, height // 14), random.uniform(-0.4, 0.4)
    starts = random.uniform((-0.1 * width, -length), (1.1 * width, height), (count, 2))
    streaks = np.zeros((height, width), np.uint8)
    for x, y in starts:
        end = (round(x + slant * length), round(y + length))
        cv2.line(streaks, (round(x), round(y)), end, (255,), 1, cv2.LINE_AA)
    opacity = streaks[..., None].astype(np.float32) / np.float32(2 * 255)
    result: Floats = (1 - opacity) * image + opacity * np.float32(RAIN)
    return result


def jpeg(image: Floats, worst: int, random: np.random.Generator) -> Floats:
    """Encoded and decoded as JPEG with a quality from `worst` to BEST_JPEG; 0 is off."""
    if not worst:
        return image
    quality = int(random.integers(min(worst, BEST_JPEG), BEST_JPEG + 1))
    pixels = np.clip(image[..., ::-1] + 0.5, 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None, "what was encoded a moment ago"
    return np.ascontiguousarray(decoded[..., ::-1], np.float32)


def cutout(
    image: Floats, mask: Image, largest: float, gray: tuple[int, ...], ignore: int, random: np.random.Generator
) -> tuple[Floats, Image]:
    """A rectangle of up to the share `largest` of each side (DeVries and Taylor 2017) hidden under gray; its labels are
    `ignore`."""
    if not largest:
        return image, mask
    height, width = mask.shape
    tall, wide = (int(side * random.uniform(0, largest)) for side in (height, width))
    top, left = random.integers(0, height - tall + 1), random.integers(0, width - wide + 1)
    image, mask = image.copy(), mask.copy()
    image[top : top + tall, left : left + wide] = gray
    mask[top : top + tall, left : left + wide] = ignore
    return image, mask
