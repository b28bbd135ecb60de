"""Batches of frames of similar sizes, so that little of them is padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from edgeseg.errors import OptionError
from edgeseg.training.loader import STRIDE, SegmentationDataset

WINDOW = 32  # batches whose frames are sorted together: fewer mix better, more pad less


class SizeBuckets(Sampler[list[int]]):
    """A `batch_sampler` for a DataLoader with collate_fn: every frame once in an epoch, in batches of up to `batch`.

    The order is random and depends on the dataset's seed and `epoch` only. Within WINDOW batches, frames of similar
    width and height come into the same one. OptionError for a batch below 1.
    """

    def __init__(self, frames: SegmentationDataset, batch: int):
        if batch < 1:
            raise OptionError(f"The batch is {batch}.", "Expected at least 1 frame.")
        self.frames, self.batch = frames, batch

    def __len__(self) -> int:
        return -(-len(self.frames) // self.batch)

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng((self.frames.seed, self.frames.epoch))
        order = random.permutation(len(self.frames))
        padded = -(-self.frames.sizes // STRIDE)
        groups = []
        for start in range(0, len(order), WINDOW * self.batch):
            window = order[start : start + WINDOW * self.batch]
            window = window[np.lexsort(padded[window].T)]  # by width, then height; equal ones stay in random order
            groups += [window[i : i + self.batch].tolist() for i in range(0, len(window), self.batch)]
        for i in random.permutation(len(groups)):
            yield groups[i]
