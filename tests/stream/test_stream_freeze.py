"""A frozen picture and a quiet scene, both as a real H.264 encoder and decoder leave them."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest

from edgeseg.stream.freeze import FreezeDetector
from edgeseg.synth.street import Street

av = pytest.importorskip("av", reason="pip install 'edgeseg[camera]'")
FPS, SECONDS, GOP = 25, 12, 50
DAY = Street(3, height=180, width=320).frame(0)[0]
NIGHT = (cv2.GaussianBlur(DAY, (0, 0), 1.5) * 0.25 + 8).astype(np.uint8)


def through_h264(images, crf: int):
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.gop_size = 320, 180, "yuv420p", GOP
    encoder.time_base, encoder.framerate = Fraction(1, FPS), Fraction(FPS)
    encoder.options = {"preset": "veryfast", "tune": "zerolatency", "crf": str(crf)}
    decoder = av.CodecContext.create("h264", "r")
    for i, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(image, "bgr24").reformat(format="yuv420p")
        frame.pts = i
        for packet in encoder.encode(frame):
            yield from (decoded.to_ndarray(format="bgr24") for decoded in decoder.decode(packet))


def longest_freeze(images) -> float:
    detector = FreezeDetector()
    return max(detector.seconds(image, i / FPS) for i, image in enumerate(images))


def noisy(image, sigma: float):
    rng = np.random.default_rng(0)
    for _ in range(4 * GOP):
        yield np.clip(image + rng.normal(0, sigma, image.shape).round(), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("crf", [23, 32])
@pytest.mark.parametrize("image", [DAY, NIGHT], ids=["day", "night"])
def test_a_frozen_picture_is_found(image, crf):
    assert longest_freeze(through_h264([image] * SECONDS * FPS, crf)) > 0.6 * SECONDS


@pytest.mark.parametrize("crf", [23, 32])
@pytest.mark.parametrize("sigma", [0.7, 2.0])
@pytest.mark.parametrize("image", [DAY, NIGHT], ids=["day", "night"])
def test_a_quiet_scene_with_sensor_noise_is_alive(image, sigma, crf):
    """At a high quantizer the noise survives in key frames only: from one to the next nothing changes."""
    assert longest_freeze(through_h264(noisy(image, sigma), crf)) < 1.5 * GOP / FPS


def test_something_small_that_moves_is_alive():
    def walking():
        for i in range(SECONDS * FPS):
            image = DAY.copy()
            image[100:112, i : i + 4] = 255 - image[100:112, i : i + 4]
            yield image

    assert longest_freeze(through_h264(walking(), 23)) < 1


def test_a_slow_change_is_not_a_freeze():
    """A level in two seconds: no two images in a row differ, but the light goes."""
    images = (cv2.subtract(DAY, np.full_like(DAY, i // 50)) for i in range(SECONDS * FPS))
    assert longest_freeze(images) < 3
