"""Augmentation: image and mask stay together, and every setting changes only what it is for."""

from __future__ import annotations

import numpy as np
import pytest
from training_helpers import HEIGHT, WIDTH, scene

from edgeseg.recipe import Settings
from edgeseg.training.augment import augment, blur_and_noise, recolor, shifts, warp
from edgeseg.training.objectives.losses import IGNORE

STILL = {"scale": (1.0, 1.0), "jitter": 0.0, "flip": False}


@pytest.mark.parametrize(
    "settings",
    [
        Settings(scale=(0.5, 2.0)),
        Settings(**STILL | {"rotate": 45.0}),
        Settings(**STILL | {"elastic": 6.0}),
        Settings(scale=(0.5, 2.0), rotate=180.0, elastic=6.0, crop=(64, 64)),
    ],
    ids=["zoom", "rotate", "elastic", "all"],
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
