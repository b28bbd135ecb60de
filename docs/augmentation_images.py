"""Draw docs/images/augmentations.jpg, a rendered street under each augmentation: python docs/augmentation_images.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import edgeseg
from edgeseg.images import Image, write_image
from edgeseg.recipe import Settings
from edgeseg.report.labeled_sheet import Tile, labeled_sheet
from edgeseg.synth.street import CLASSES
from edgeseg.training import mix
from edgeseg.training.augment import augment

DOCS = Path(__file__).parent
HEIGHT, WIDTH = 240, 400
STILL: dict[str, Any] = {"scale": (1.0, 1.0), "jitter": 0.0, "flip": False}
SHOWN: dict[str, dict[str, Any]] = {
    "the frame": {},
    "scale = [0.6, 1.6]": {"scale": (0.6, 1.6)},
    "rotate = 15": {"rotate": 15.0},
    "elastic = 12": {"elastic": 12.0},
    "jitter = 0.5": {"jitter": 0.5},
    "blur = 3": {"blur": 3.0},
    "noise = 30": {"noise": 30.0},
    "hue = 40": {"hue": 40.0},
    "gamma = 0.8": {"gamma": 0.8},
    "shadow = 0.8": {"shadow": 0.8},
    "fog = 0.7": {"fog": 0.7},
    "rain = 1": {"rain": 1.0},
    "jpeg = 5": {"jpeg": 5},
    "cutout = 0.5": {"cutout": 0.5},
    "perspective = 0.2": {"perspective": 0.2},
    "cutmix = 0.7": {"cutmix": 0.7},
    "copy_paste = 1": {"copy_paste": 1.0},
}


def rendered(seed: int, number: int) -> tuple[Image, Image]:
    """A frame in RGB and its labels."""
    bgr, mask = edgeseg.Street(seed=seed, height=HEIGHT, width=WIDTH).frame(number)
    return np.ascontiguousarray(bgr[..., ::-1]), mask


def other_frames() -> mix.Frames:
    """Those of other streets with the largest pedestrians, for what shows a part of another frame."""
    pedestrian = CLASSES.names.index("pedestrian")
    frames = [rendered(seed, number) for seed in range(12, 24) for number in (20, 50, 80)]
    frames = sorted(frames, key=lambda frame: int((frame[1] == pedestrian).sum()))[-3:]
    pixels = np.array([np.bincount(mask.ravel(), minlength=256)[: len(CLASSES.names)] for _, mask in frames])
    return mix.Frames(len(frames), mix.RareClasses.among(pixels), frames.__getitem__, lambda index: None)


def strong(frame: Image, mask: Image, settings: Settings, others: mix.Frames) -> Image:
    """Of several draws one that changes the frame more than most."""
    draws = []
    for seed in range(20):
        layers = mix.layers(others, 0, HEIGHT, WIDTH, settings, (seed,))
        draws.append(augment(frame, mask, HEIGHT, WIDTH, settings, np.random.default_rng(seed), None, layers)[0])
    return sorted(draws, key=lambda image: float(np.abs(image - frame).mean()))[16].clip(0, 255).astype(np.uint8)


def main() -> None:
    rgb, mask = rendered(11, 40)
    others = other_frames()
    pictures = [(name, strong(rgb, mask, Settings(**(STILL | keys)), others)) for name, keys in SHOWN.items()]
    tiles = [Tile(name, picture[..., ::-1]) for name, picture in pictures]
    write_image(DOCS / "images" / "augmentations.jpg", labeled_sheet(tiles, CLASSES, width=280, columns=5))


if __name__ == "__main__":
    main()
