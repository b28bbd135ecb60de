"""Frames of a Dataset as normalized tensors and batches, reproducible from (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from edgeseg.data.dataset import Dataset
from edgeseg.errors import OptionError
from edgeseg.fit import fit_frame, fit_labels
from edgeseg.images import Image
from edgeseg.recipe import Settings
from edgeseg.spec import Spec
from edgeseg.training import cached_logits, frame_order, mix
from edgeseg.training.augment import Floats, Geometry, augment
from edgeseg.training.objectives.losses import IGNORE

Sample = tuple[Tensor, ...]  # image, labels and, with a teacher cache, the teacher's logits
STRIDE = 32  # of the deepest stage of a net: padded sizes are multiples of it


class SegmentationDataset(TorchDataset[Sample]):
    """Item i: image [3, H, W] float32 normalized by `spec`, labels [H, W] int64 with IGNORE for unlabeled pixels.

    Decoded frames stay in memory, up to `cache` GB (`frames_in_memory` counts them). With `settings` the items are
    augmented, otherwise only resized; with `own_size` they start from the size of their frame instead of that of
    `spec` (see collate_fn). `sizes` [N, 2] are the heights and widths of the items, `pixels` counts the labeled pixels
    of every class. Set `epoch` before each pass: the random choices of an item depend on (seed, epoch, index) and
    nothing else, so the number of workers or a resume cannot change them. With `teacher_cache` set to a folder of
    teacher_cache.py, augmented items end in the teacher's logits [C, H, W] float32. `shuffle_buffer`: see frame_order.
    OptionError where the classes are not those of `spec`, and for a buffer without shards.
    """

    teacher_cache: Path | None = None

    def __init__(
        self,
        dataset: Dataset,
        spec: Spec,
        settings: Settings | None = None,
        seed: int = 0,
        cache: float = 4.0,
        own_size: bool = False,
        shuffle_buffer: int = 0,
    ):
        if dataset.classes.names != spec.classes:
            raise OptionError(
                f"Dataset {dataset.root} has the classes {', '.join(dataset.classes.names)}.",
                f"Expected those of the Spec: {', '.join(spec.classes)}.",
            )
        self.dataset, self.spec, self.settings, self.seed, self.epoch = dataset, spec, settings, seed, 0
        self.own_size, self.shuffle_buffer = own_size, shuffle_buffer
        frame_order.shuffled(dataset, seed, 0, shuffle_buffer)  # refuses what is wrong before the long part
        self._mean = np.array(spec.mean, np.float32) * np.float32(255)
        self._scale = 1 / (np.array(spec.std, np.float32) * np.float32(255))
        self._of_byte = ((np.arange(256, dtype=np.float32)[:, None] - self._mean) * self._scale)[:, None]
        self._decoded: dict[int, tuple[Image, Image]] = {}
        pixels = np.zeros((len(dataset), len(spec.classes)), np.int64)
        self.sizes: NDArray[np.int64] = np.zeros((len(dataset), 2), np.int64)
        bytes_left = cache * 1e9
        for i in range(len(dataset)):  # reads every mask of files once: a bad one stops the run before it starts
            if bytes_left > 0:
                self._decoded[i] = self._item(i)
                bytes_left -= sum(part.nbytes for part in self._decoded[i])
            if i in self._decoded or not dataset.shards:
                mask = self._decoded[i][1] if i in self._decoded else dataset.mask(i)
                pixels[i] = np.bincount(mask.ravel(), minlength=256)[: len(spec.classes)]
                self.sizes[i] = self._size(*mask.shape)
            else:  # the index of shards says it
                pixels[i] = dataset.shards.pixels[i]
                self.sizes[i] = self._size(*dataset.shards.sizes[i].tolist())
        self.pixels: NDArray[np.int64] = pixels.sum(0)
        self._rare = mix.RareClasses.among(pixels)

    def _item(self, index: int) -> tuple[Image, Image]:
        if index in self._decoded:
            return self._decoded[index]
        frame, mask = self.dataset[index]
        if self._is_fitted_first:
            frame, mask = fit_frame(frame, self.spec), fit_labels(mask, self.spec, IGNORE)
        if self.spec.color == "RGB":
            frame = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
        ignore = self.dataset.classes.ignore_index
        return frame, mask if ignore is None else np.where(mask == ignore, np.uint8(IGNORE), mask)

    def _objects(self, index: int) -> NDArray[np.uint16] | None:
        """The objects of a frame, for its mask as _item gives it."""
        objects = self.dataset.instances(index)
        if objects is None or not self._is_fitted_first:
            return objects
        low, high = (fit_labels(part.astype(np.uint8), self.spec, 0) for part in (objects & 255, objects >> 8))
        return (low + high.astype(np.uint16) * np.uint16(256)).astype(np.uint16)

    @property
    def _is_fitted_first(self) -> bool:
        """Whether a frame is fitted to the input before it is augmented, which stretches by itself."""
        return self.settings is not None and self.spec.fit != "stretch" and not self.own_size

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the item whose mask has this size."""
        if not self.own_size:
            height, width = self.spec.height, self.spec.width
        crop = (0, 0) if self.settings is None else self.settings.crop
        return crop[0] or height, crop[1] or width

    @property
    def frames_in_memory(self) -> int:
        return len(self._decoded)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        frame, mask = self._item(index)
        height, width = mask.shape if self.own_size else (self.spec.height, self.spec.width)
        cached: list[Tensor] = []
        if self.settings is None:
            if not self.own_size:
                frame, mask = fit_frame(frame, self.spec), fit_labels(mask, self.spec, IGNORE)
            image: Image | Floats = frame
        else:
            random = np.random.default_rng((self.seed, self.epoch, index))
            geometry = Geometry.draw(height, width, self.settings, random)
            others = mix.Frames(len(self), self._rare, self._item, self._objects)
            layers = mix.layers(others, index, height, width, self.settings, (self.seed, self.epoch, index))
            image, mask = augment(frame, mask, height, width, self.settings, random, geometry, layers)
            if self.teacher_cache is not None:
                cached = [cached_logits.read_logits(self.teacher_cache, index, geometry, layers)]
        return self._normalized(image), torch.from_numpy(mask).long(), *cached

    def _normalized(self, image: Image | Floats) -> Tensor:
        """[3, H, W] of [H, W, 3]; of bytes, pixel by pixel in memory, as collate wants them."""
        if image.dtype == np.uint8:
            return torch.from_numpy(cv2.LUT(image, self._of_byte)).permute(2, 0, 1)
        scaled = np.empty((3, *image.shape[:2]), np.float32)
        for channel in range(3):  # each by itself: three times as fast as with pixels of three channels
            np.subtract(image[:, :, channel], self._mean[channel], out=scaled[channel])
        scaled *= self._scale[:, None, None]
        return torch.from_numpy(scaled)


def collate(samples: list[Sample]) -> Sample:
    """images [N, 3, H, W] channels_last, labels [N, H, W] and, with a teacher cache, logits [N, C, H, W].

    Where sizes differ, samples are padded as in collate_fn.
    """
    sizes = {tuple(sample[1].shape) for sample in samples}
    images, *rest = zip(*(_padded(samples) if len(sizes) > 1 else samples))
    pixels = torch.stack([image.permute(1, 2, 0) for image in images])  # channels_last in one copy
    return pixels.permute(0, 3, 1, 2), *(torch.stack(parts) for parts in rest)


def collate_fn(samples: list[Sample]) -> Sample:
    """For a DataLoader over frames of different sizes: images [N, 3, H, W] channels_last, labels [N, H, W], what else
    the samples hold, and the sizes [N, 2] int64, height and width of each before it was padded.

    Samples are padded at the right and bottom to the largest, rounded up to a multiple of STRIDE: images and logits
    with 0 (the mean color), labels with IGNORE. OptionError for an image and labels of different sizes.
    """
    for number, (image, labels, *_) in enumerate(samples):
        if image.shape[-2:] != labels.shape:
            (height, width), (tall, wide) = image.shape[-2:], labels.shape
            raise OptionError(
                f"Sample {number} of a batch has an image of {width}x{height} and labels of {wide}x{tall}.",
                "Both must have the same size.",
            )
    sizes = torch.tensor([sample[1].shape for sample in samples])
    return *collate(_padded(samples)), sizes


def _padded(samples: list[Sample]) -> list[Sample]:
    height, width = (-(-max(side) // STRIDE) * STRIDE for side in zip(*(sample[1].shape for sample in samples)))
    fills = (0, IGNORE, 0)
    return [tuple(_pad(t, height, width, fill) for t, fill in zip(sample, fills)) for sample in samples]


def _pad(tensor: Tensor, height: int, width: int, value: int) -> Tensor:
    return F.pad(tensor, (0, width - tensor.shape[-1], 0, height - tensor.shape[-2]), value=value)


def batches(
    frames: SegmentationDataset,
    batch: int,
    epoch: int,
    shuffle: bool = True,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    start: int = 0,
) -> Iterator[Sample]:
    """The collated batches of one epoch from number `start` on; process `rank` of `world` gets its share of each.

    When shuffled, an incomplete last batch is dropped (it would hurt batch norm; another epoch drops other frames).
    """
    frames.epoch = epoch
    count = len(frames)
    order = np.arange(count)
    if shuffle:
        order = frame_order.shuffled(frames.dataset, frames.seed, epoch, frames.shuffle_buffer)
    end = count - count % batch if shuffle and count >= batch else count
    shares = [order[i : i + batch].tolist()[rank::world] for i in range(start * batch, end, batch)]
    groups = [share for share in shares if share]
    private = torch.Generator().manual_seed(0)  # the loader's own draw must not advance the training's random state
    yield from DataLoader(frames, batch_sampler=groups, num_workers=workers, generator=private, collate_fn=collate)


def steps(frames: SegmentationDataset, batch: int) -> int:
    """The number of shuffled batches in an epoch."""
    return max(1, len(frames) // batch)
