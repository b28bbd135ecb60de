"""Reading the teacher cache: the teacher's logits for one frame, transformed like the augmented frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from edgeseg.errors import FileError
from edgeseg.training.augment import Geometry, Layer

CHANNELS = 64  # warped at once: OpenCV refuses more than 128


def read_logits(folder: Path, index: int, geometry: Geometry, layers: Sequence[Layer] = ()) -> Tensor:
    """The logits [C, H, W] float32 of frame `index`, transformed by `geometry`; 0 outside the frame.

    Where `layers` cover it, those of the covering frames.
    """
    logits = _read(folder, index, geometry)
    for layer in layers:
        covering = _read(folder, layer.index, layer.geometry)
        logits = torch.where(torch.from_numpy(layer.where), covering, logits)
    return logits


def _read(folder: Path, index: int, geometry: Geometry) -> Tensor:
    path = logits_path(folder, index)
    try:
        small = np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise FileError(f"Cached logits {path} cannot be read: {error}.", "Remove the folder they are in.") from error
    groups = np.array_split(small, -(-small.shape[2] // CHANNELS), 2)
    warped = np.concatenate([geometry.apply(group, cv2.INTER_LINEAR, (0,)) for group in groups], 2)
    return torch.from_numpy(np.ascontiguousarray(warped.transpose(2, 0, 1)))


def logits_path(folder: Path, index: int) -> Path:
    return folder / f"{index:06}.npy"
