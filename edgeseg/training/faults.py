"""What goes wrong while a net trains, said so that a person can act on it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from edgeseg.errors import EdgesegError, OptionError
from edgeseg.recipe import Settings

if TYPE_CHECKING:
    from edgeseg.training.loader import SegmentationDataset

log = logging.getLogger(__name__)
MEMORY = re.compile("out of memory|allocate memory|not enough memory", re.IGNORECASE)


@contextmanager
def translated(settings: Settings, where: str) -> Iterator[None]:
    """torch's errors about memory and batch norm as EdgesegErrors; `where` ends the sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not MEMORY.search(str(error)):
            raise
        raise EdgesegError(
            f"Out of memory with batches of {settings.batch} frames in {settings.accumulate} part(s); {where}.",
            "Raise accumulate (the batch in smaller parts), or lower batch, crop or data.size, or use precision bf16.",
        ) from error
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise OptionError(
            "A batch of one frame is too small for this net's batch norms.",
            "Raise batch, or lower accumulate or the number of processes: each part needs two frames.",
        ) from error


def inspect(train: SegmentationDataset, val: SegmentationDataset) -> None:
    """Raises OptionError for labels nothing can be learnt from; warns of classes that never occur."""
    names = train.spec.classes
    for frames in (train, val):
        if not frames.pixels.any():
            raise OptionError(
                f"No pixel of {frames.dataset.root}/{frames.dataset.split} is labeled: every mask is all ignore.",
                "Check the masks and the ignore id in classes.txt.",
            )
    found = np.flatnonzero(train.pixels)
    if len(found) == 1:
        raise OptionError(
            f"Only the class {names[found[0]]!r} occurs in {train.dataset.root}/{train.dataset.split}.",
            "A net needs two classes to tell apart; check the masks.",
        )
    missing = [name for name, count in zip(names, train.pixels) if not count]
    if missing:
        log.warning(
            "%s never occurs in %s/%s and cannot be learnt: label some frames with it, or take it out of classes.txt.",
            ", ".join(missing),
            train.dataset.root,
            train.dataset.split,
        )
