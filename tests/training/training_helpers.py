"""A tiny dataset that can be learned: bright rectangles and dark discs on gray, and a stripe that is ignored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor, nn

from edgeseg.data.dataset import Classes
from edgeseg.files import write_bytes
from edgeseg.images import write_image
from edgeseg.recipe import Recipe
from edgeseg.spec import Spec

CLASSES = Classes(("ground", "box", "disc"), ((90, 90, 90), (240, 200, 0), (20, 20, 120)), 9)
HEIGHT, WIDTH = 64, 96
SPEC = Spec(HEIGHT, WIDTH, CLASSES.names, CLASSES.palette, CLASSES.ignore_index)


def stop() -> None:
    """What Ctrl-C does."""
    raise KeyboardInterrupt


class CalledAt(nn.Module):
    """A net that does `action` in the given call of training, counted from 1; never for 0."""

    def __init__(self, action: Callable[[], None], inner: nn.Module, call: int):
        super().__init__()
        self.action, self.inner, self.left = action, inner, call

    def forward(self, image: Tensor) -> Tensor:
        self.left -= self.training
        if self.training and self.left == 0:
            self.action()
        return self.inner(image)  # type: ignore[no-any-return]


def scene(seed: int, height: int = HEIGHT, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    frame = np.full((height, width, 3), 120, np.uint8)
    mask = np.zeros((height, width), np.uint8)
    x, y = int(random.integers(0, width // 2)), int(random.integers(0, height // 2))
    cv2.rectangle(frame, (x, y), (x + 30, y + 24), (40, 220, 250), -1)
    cv2.rectangle(mask, (x, y), (x + 30, y + 24), 1, -1)
    center = (int(random.integers(12, width - 12)), int(random.integers(12, height - 12)))
    cv2.circle(frame, center, 11, (90, 30, 20), -1)
    cv2.circle(mask, center, 11, 2, -1)
    mask[:, -4:] = 9
    noise = random.integers(-12, 13, frame.shape)
    return np.clip(frame + noise, 0, 255).astype(np.uint8), mask


def write_scenes(root: Path, counts: dict[str, int], height: int = HEIGHT, width: int = WIDTH) -> Path:
    write_bytes(root / "classes.txt", CLASSES.text().encode())
    seed = 0
    for split, count in counts.items():
        for i in range(count):
            seed += 1
            frame, mask = scene(seed, height, width)
            write_image(root / split / "images" / f"{i:03}.png", frame)
            write_image(root / split / "masks" / f"{i:03}.png", mask)
    return root


def recipe(**sections: object) -> Recipe:
    tiny = {"width": 0.25, "epochs": 2, "batch": 4}
    table = {
        "name": "tiny",
        "data": {"root": ".", "size": [HEIGHT, WIDTH]},
        "teacher": {**tiny, "width": 0.5},
        "student": tiny,
        "prune": {"epochs": 1, "round_to": 2},
        "targets": {"compile": ["openvino-cpu:fp32"]},
    }
    return Recipe.from_dict({**table, **sections}, Path("recipe.toml"))
