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
}


def strong(frame: Image, mask: Image, settings: Settings) -> Image:
    """Of several draws one that changes the frame more than most."""
    draws = [augment(frame, mask, HEIGHT, WIDTH, settings, np.random.default_rng(seed))[0] for seed in range(20)]
    return sorted(draws, key=lambda image: float(np.abs(image - frame).mean()))[16].clip(0, 255).astype(np.uint8)


def main() -> None:
    bgr, mask = edgeseg.Street(seed=11, height=HEIGHT, width=WIDTH).frame(40)
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    pictures = [(name, strong(rgb, mask, Settings(**(STILL | keys)))) for name, keys in SHOWN.items()]
    tiles = [Tile(name, picture[..., ::-1]) for name, picture in pictures]
    write_image(DOCS / "images" / "augmentations.jpg", labeled_sheet(tiles, CLASSES, width=280, columns=5))


if __name__ == "__main__":
    main()
