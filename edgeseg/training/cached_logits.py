"""Reading what teacher_cache.py stored: the teacher's logits for one frame, moved as the frame was augmented."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from edgeseg.errors import FileError
from edgeseg.training.augment import Geometry

CHANNELS = 64  # that OpenCV moves at once: it refuses more than 128


def read(home: Path, index: int, geometry: Geometry) -> Tensor:
    """The logits [C, H, W] float32 of a frame as `geometry` places them, 0 outside the frame."""
    path = path_of(home, index)
    try:
        small = np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise FileError(f"Answers of the teacher {path} cannot be read: {error}.", "Remove their folder.") from error
    groups = np.array_split(small, -(-small.shape[2] // CHANNELS), 2)
    placed = np.concatenate([geometry.place(group, cv2.INTER_LINEAR, (0,)) for group in groups], 2)
    return torch.from_numpy(np.ascontiguousarray(placed.transpose(2, 0, 1)))


def path_of(home: Path, index: int) -> Path:
    return home / f"{index:06}.npy"
