"""Frames of a Dataset as normalised tensors, augmented with OpenCV alone and reproducible per (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from edgeseg.data.dataset import Dataset
from edgeseg.data.images import Image, resize
from edgeseg.errors import OptionError
from edgeseg.recipe import Settings
from edgeseg.spec import Spec
from edgeseg.training.losses import IGNORE

Sample = tuple[Tensor, Tensor]


class Frames(TorchDataset[Sample]):
    """Item i: image [3, H, W] float32 as `spec` wants it, labels [H, W] int64 with IGNORE where nothing counts.

    Every frame is decoded once and kept in memory. With `settings` the items are augmented, otherwise only resized.
    Set `epoch` before each pass: the random choices of an item depend on (seed, epoch, index) and nothing else, so the
    number of workers or a resume cannot change them.
    """

    def __init__(self, dataset: Dataset, spec: Spec, settings: Settings | None = None, seed: int = 0):
        if dataset.classes.names != spec.classes:
            raise OptionError(
                f"Dataset {dataset.root} has the classes {', '.join(dataset.classes.names)}.",
                f"Expected those of the Spec: {', '.join(spec.classes)}.",
            )
        self.dataset, self.spec, self.settings, self.seed, self.epoch = dataset, spec, settings, seed, 0
        self._items = [self._decode(i) for i in range(len(dataset))]
        self._mean = np.array(spec.mean, np.float32) * np.float32(255)
        self._scale = 1 / (np.array(spec.std, np.float32) * np.float32(255))

    def _decode(self, index: int) -> tuple[Image, Image]:
        frame, mask = self.dataset[index]
        if self.spec.color == "RGB":
            frame = np.ascontiguousarray(frame[:, :, ::-1])
        ignore = self.dataset.classes.ignore_index
        return frame, mask if ignore is None else np.where(mask == ignore, np.uint8(IGNORE), mask)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        frame, mask = self._items[index]
        height, width = self.spec.height, self.spec.width
        if self.settings is None:
            image: NDArray[np.float32] = resize(frame, height, width).astype(np.float32)
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
        else:
            random = np.random.default_rng((self.seed, self.epoch, index))
            frame, mask = zoom(frame, mask, height, width, self.settings, random)
            image = recolour(frame.astype(np.float32), self.settings.jitter, random)
        scaled = (image - self._mean) * self._scale
        return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1))), torch.from_numpy(mask).long()


def zoom(
    frame: Image, mask: Image, height: int, width: int, settings: Settings, random: np.random.Generator
) -> tuple[Image, Image]:
    """Stretch to height x width as inference does, zoom, mirror and cut out `settings.crop`, in one warp.

    Where a small zoom leaves room, the frame is padded with grey and the mask with IGNORE.
    """
    low, high = settings.scale
    factor = float(np.exp(random.uniform(np.log(low), np.log(high))))
    size = (settings.crop[1] or width, settings.crop[0] or height)
    room = [side * factor - cut for side, cut in zip((width, height), size)]
    corner = [random.uniform(min(0, free), max(0, free)) for free in room]
    mirror = settings.flip and random.random() < 0.5
    matrix = np.zeros((2, 3))
    for axis, (target, source) in enumerate(((width, frame.shape[1]), (height, frame.shape[0]))):
        step = source / (target * factor)  # source pixels per target pixel; centres lie at +0.5
        matrix[axis, axis] = step
        matrix[axis, 2] = (corner[axis] + 0.5) * step - 0.5
    if mirror:
        matrix[0, 2] += matrix[0, 0] * (size[0] - 1)
        matrix[0, 0] *= -1
    inverse = cv2.WARP_INVERSE_MAP
    grey = (124, 116, 104)
    image = cv2.warpAffine(frame, matrix, size, flags=cv2.INTER_LINEAR | inverse, borderValue=grey)
    labels = cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_NEAREST | inverse, borderValue=(IGNORE,))
    return image.astype(np.uint8, copy=False), labels.astype(np.uint8, copy=False)


def recolour(image: NDArray[np.float32], jitter: float, random: np.random.Generator) -> NDArray[np.float32]:
    """Random contrast, brightness and saturation of a float image [H, W, 3] in 0..255, each up to +-`jitter`."""
    if not jitter:
        return image
    contrast, brightness, saturation = (np.float32(random.uniform(1 - jitter, 1 + jitter)) for _ in range(3))
    mean = image.mean(dtype=np.float32)
    grey = image.mean(2, keepdims=True, dtype=np.float32)
    image = grey + saturation * (image - grey)
    result: NDArray[np.float32] = (mean + contrast * (image - mean)) * brightness
    return np.clip(result, 0, 255)


def batches(frames: Frames, batch: int, epoch: int, shuffle: bool = True, workers: int = 0) -> Iterator[Sample]:
    """Batches (images [N, 3, H, W] channels_last, labels [N, H, W]) of one epoch.

    Shuffled, a last batch that is not full is dropped (batch norm dislikes it; another epoch drops other frames).
    """
    frames.epoch = epoch
    count = len(frames)
    order = np.random.default_rng((frames.seed, epoch)).permutation(count) if shuffle else np.arange(count)
    end = count - count % batch if shuffle and count >= batch else count
    groups = [order[i : i + batch].tolist() for i in range(0, end, batch)]
    private = torch.Generator().manual_seed(0)  # keeps the loader's own draw out of the training's random state
    for images, labels in DataLoader(frames, batch_sampler=groups, num_workers=workers, generator=private):
        yield images.contiguous(memory_format=torch.channels_last), labels


def steps(frames: Frames, batch: int) -> int:
    """The number of shuffled batches in an epoch."""
    return max(1, len(frames) // batch)
