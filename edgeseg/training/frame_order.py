"""The order in which an epoch takes the frames: a function of seed and epoch, the same for every process and worker."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.dataset import Dataset
from edgeseg.errors import OptionError


def shuffled(dataset: Dataset, seed: int, epoch: int, buffer: int = 0) -> NDArray[np.int64]:
    """Every frame of `dataset` once. `buffer` 0 mixes all of them; a number reads shards one after another, in random
    order, and mixes so many frames at a time. OptionError for a `buffer` without shards."""
    random = np.random.default_rng((seed, epoch))
    if not buffer:
        return random.permutation(len(dataset))
    if not dataset.shards:
        raise OptionError(
            f"data.shuffle_buffer is {buffer}, but {dataset.root} is not in shards.",
            "Set it to 0, or write shards: edgeseg data shard.",
        )
    shards = dataset.shards.orders()
    in_order = np.concatenate([shards[i] for i in random.permutation(len(shards))])
    return np.fromiter(_mixed(in_order.tolist(), buffer, random), np.int64, len(in_order))


def _mixed(frames: list[int], size: int, random: np.random.Generator) -> Iterable[int]:
    """Each of `frames`, drawn from the `size` next ones that are left."""
    waiting = frames[:size]
    for following in frames[size:]:
        place = int(random.integers(len(waiting)))
        yield waiting[place]
        waiting[place] = following
    yield from random.permutation(waiting).tolist()
