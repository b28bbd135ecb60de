"""Augmentation: image and mask stay together, and every setting changes only what it is for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_helpers import HEIGHT, WIDTH, scene

from edgeseg.recipe import Settings
from edgeseg.training import distort
from edgeseg.training.augment import Geometry, augment, blur_and_noise, recolor, shifts, tilt, warp
from edgeseg.training.objectives.losses import IGNORE

STILL = {"scale": (1.0, 1.0), "jitter": 0.0, "flip": False}


@pytest.mark.parametrize(
    "settings",
    [
        Settings(scale=(0.5, 2.0)),
        Settings(**STILL | {"rotate": 45.0}),
        Settings(**STILL | {"elastic": 6.0}),
        Settings(**STILL | {"perspective": 0.2}),
        Settings(scale=(0.5, 2.0), rotate=180.0, elastic=6.0, crop=(64, 64)),
        Settings(scale=(0.5, 2.0), rotate=180.0, elastic=6.0, perspective=0.2, crop=(64, 64)),
    ],
    ids=["zoom", "rotate", "elastic", "perspective", "all", "all with perspective"],
)
def test_image_and_mask_move_together(settings: Settings) -> None:
    """A frame that is its own mask must still be so after any change of geometry (away from blended edges)."""
    _, mask = scene(1)
    mask[mask == 9] = 0
    frame = np.repeat(mask[..., None] * 100, 3, 2).astype(np.uint8)
    moved = 0
    for seed in range(20):
        image, labels = warp(frame, mask, HEIGHT, WIDTH, settings, np.random.default_rng(seed))
        assert image.shape[:2] == labels.shape == ((64, 64) if settings.crop[0] else (HEIGHT, WIDTH))
        inside = (labels != IGNORE) & np.isin(image[..., 0], (0, 100, 200))
        assert (image[..., 0][inside] != labels[inside] * 100).mean() < 0.01
        moved += labels.shape != mask.shape or (labels != mask).any()
    assert moved >= 19


def test_a_zoom_out_pads_the_mask_with_ignore() -> None:
    frame, mask = scene(1)
    settings = Settings(scale=(0.5, 0.5), flip=False)
    _, labels = warp(frame, mask, HEIGHT, WIDTH, settings, np.random.default_rng(0))
    assert (labels != IGNORE).mean() == pytest.approx(0.25 * (WIDTH - 4) / WIDTH, abs=0.02)


def test_a_quarter_turn_by_hand() -> None:
    """A positive angle turns the frame to the right."""

    class Angle:
        def uniform(self, low: float, high: float) -> float:
            return high if low == -90 else 0.0

    frame, mask = scene(1, 64, 64)
    image, labels = warp(frame, mask, 64, 64, Settings(**STILL | {"rotate": 90.0}), Angle())  # type: ignore[arg-type]
    assert (labels == np.rot90(mask, -1)).mean() > 0.999
    assert np.abs(image.astype(int) - np.rot90(frame, -1)).max() <= 1


@given(seed=st.integers(0, 2**32), largest=st.floats(0.001, 0.2), width=st.integers(32, 2000))
def test_a_perspective_moves_corners_as_far_as_asked_and_nothing_to_infinity(
    seed: int, largest: float, width: int
) -> None:
    homography = tilt((width, 64), largest, np.random.default_rng(seed))
    corners = np.array([(0, 0, 1), (width - 1, 0, 1), (width - 1, 63, 1), (0, 63, 1)]) @ homography.T
    assert (corners[:, 2] > 0.1).all(), "and so for every position between them"
    share = (corners[:, :2] / corners[:, 2:] - [(0, 0), (width - 1, 0), (width - 1, 63), (0, 63)]) / (width - 1, 63)
    assert np.abs(share).max() <= largest + 1e-3


def test_a_perspective_keeps_straight_lines_and_ignores_what_lies_outside() -> None:
    frame, mask = scene(1)
    mask[mask == 9] = 0
    settings = Settings(**STILL | {"perspective": 0.2})  # type: ignore[arg-type]
    for seed in range(10):
        random = np.random.default_rng(seed)
        geometry = Geometry.draw(HEIGHT, WIDTH, settings, random)
        _, labels = warp(frame, mask, HEIGHT, WIDTH, settings, random, geometry)
        x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
        source = np.stack([x, y, np.ones_like(x)], 2) @ geometry.homography.T  # type: ignore[union-attr]
        at = source[..., :2] / source[..., 2:]
        outside = ((at < -0.6) | (at > np.array((WIDTH, HEIGHT)) - 0.4)).any(2)
        inside = ((at > -0.4) & (at < np.array((WIDTH, HEIGHT)) - 0.6)).all(2)
        assert (labels[outside] == IGNORE).all() and (labels[inside] != IGNORE).all()


def test_elastic_shifts_are_smooth_and_bounded() -> None:
    field = shifts((WIDTH, HEIGHT), 5.0, np.random.default_rng(0))
    assert field.shape == (HEIGHT, WIDTH, 2)
    assert 2 < np.abs(field).max() < 8  # a cubic may overshoot a little
    assert np.abs(np.diff(field, axis=0)).max() < 1 and np.abs(np.diff(field, axis=1)).max() < 1


def test_recolor_stays_in_range_and_off_means_off() -> None:
    image = scene(1)[0].astype(np.float32)
    changed = recolor(image, 0.5, np.random.default_rng(0))
    assert changed.min() >= 0 and changed.max() <= 255 and not np.allclose(changed, image)
    assert recolor(image, 0.0, np.random.default_rng(0)) is image


def test_noise_is_as_strong_as_asked_and_blur_removes_it() -> None:
    flat = np.full((200, 200, 3), 128, np.float32)
    noisy = [blur_and_noise(flat, 0.0, 20.0, np.random.default_rng(seed)).std() for seed in range(30)]
    assert min(noisy) > 0 and 15 < max(noisy) <= 20.5
    grain = flat + np.random.default_rng(0).normal(0, 20, flat.shape).astype(np.float32)
    blurred = blur_and_noise(grain, 3.0, 0.0, np.random.default_rng(1))
    assert blurred.std() < 0.5 * grain.std() and blurred.mean() == pytest.approx(128, abs=1)
    assert blur_and_noise(flat, 0.0, 0.0, np.random.default_rng(0)) is flat


def test_knobs_that_are_off_leave_the_random_numbers_of_the_others_alone() -> None:
    """So that a new knob does not change the runs of old recipes."""
    frame, mask = scene(1)
    plain, _ = augment(frame, mask, HEIGHT, WIDTH, Settings(), np.random.default_rng(3))
    noisy, _ = augment(frame, mask, HEIGHT, WIDTH, Settings(noise=1e-6, blur=1e-6), np.random.default_rng(3))
    np.testing.assert_allclose(plain, noisy, atol=1e-3)


MORE = {
    "hue": {"hue": 90.0},
    "gamma": {"gamma": 1.0},
    "shadow": {"shadow": 0.9},
    "fog": {"fog": 0.9},
    "rain": {"rain": 1.0},
    "jpeg": {"jpeg": 5},
    "cutout": {"cutout": 0.9},
}


@pytest.mark.parametrize("key", MORE)
def test_light_and_weather_change_the_frame_and_not_its_labels(key: str) -> None:
    frame, mask = scene(1)
    settings, strengths = Settings(**STILL | MORE[key]), []  # type: ignore[arg-type]
    for seed in range(12):
        image, labels = augment(frame, mask, HEIGHT, WIDTH, settings, np.random.default_rng(seed))
        again, _ = augment(frame, mask, HEIGHT, WIDTH, settings, np.random.default_rng(seed))
        assert (image == again).all() and image.dtype == np.float32 and image.shape == (HEIGHT, WIDTH, 3)
        assert image.min() >= 0 and image.max() <= 255.01
        same = labels == mask
        assert same.all() if key != "cutout" else (labels[~same] == IGNORE).all()
        strengths.append(float(np.abs(image - frame).mean()))
    assert len(set(strengths)) > 6 and max(strengths) > 1.3 * min(strengths), "the strength is drawn for each frame"


def test_settings_that_are_off_draw_nothing() -> None:
    """So that a recipe trains as it did before these keys were there."""
    frame, mask = scene(1)
    random, other = np.random.default_rng(3), np.random.default_rng(3)
    augment(frame, mask, HEIGHT, WIDTH, Settings(), random)
    warp(frame, mask, HEIGHT, WIDTH, Settings(), other)
    recolor(frame.astype(np.float32), Settings().jitter, other)
    assert random.random() == other.random()


class Largest:
    """Draws the upper end of every range."""

    def uniform(self, low: float, high: float) -> float:
        return high

    def integers(self, low: int, high: int) -> int:
        return low


def test_light_and_weather_by_hand() -> None:
    pixel = np.array([[[255, 0, 0], [64, 64, 64]]], np.float32)
    largest: Any = Largest()
    assert distort.hue(pixel, 120, largest) == pytest.approx(np.array([[[0, 255, 0], [64, 64, 64]]]), abs=0.01)
    assert distort.gamma(pixel, np.log(2), largest)[0, 1] == pytest.approx([255 * (64 / 255) ** 2] * 3)
    assert distort.fog(pixel, 0.5, largest)[0, 0] == pytest.approx([237.5, 110, 110])
    image, mask = np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8)
    hidden, labels = distort.cutout(image, mask, 0.5, (9, 9, 9), IGNORE, largest)
    assert (labels == IGNORE).sum() == 16 and ((hidden == 9).all(2) == (labels == IGNORE)).all()
    assert not mask.any() and not image.any(), "the inputs stay as they are"
    assert distort.jpeg(image, 0, largest) is image


def test_a_shadow_only_darkens_and_rain_only_moves_toward_gray() -> None:
    frame = scene(1)[0].astype(np.float32)
    for seed in range(10):
        darker = distort.shadow(frame, 0.9, np.random.default_rng(seed))
        assert (darker <= frame).all() and (darker >= 0.09 * frame).all()
        wet = distort.rain(frame, 1.0, np.random.default_rng(seed))
        assert (np.abs(wet - distort.RAIN) <= np.abs(frame - distort.RAIN) + 1e-3).all()
