"""A check of the labels before training starts: whether a net can learn anything from them."""

from __future__ import annotations

import logging

import numpy as np

from edgeseg.errors import OptionError
from edgeseg.training.loader import SegmentationDataset

log = logging.getLogger(__name__)


def check_labels(train: SegmentationDataset, val: SegmentationDataset) -> None:
    """OptionError for splits without labels or with a single class; a warning for classes that never occur."""
    names = train.spec.classes
    for frames in (train, val):
        if not frames.pixels.any():
            raise OptionError(
                f"No pixel of {frames.dataset.root}/{frames.dataset.split} is labeled: every mask is all ignore.",
                "Check the masks and the ignore id in classes.txt.",
            )
    present = np.flatnonzero(train.pixels)
    if len(present) == 1:
        raise OptionError(
            f"Only the class {names[present[0]]!r} occurs in {train.dataset.root}/{train.dataset.split}.",
            "Training needs at least two classes; check the masks.",
        )
    missing = [name for name, count in zip(names, train.pixels) if not count]
    if missing:
        log.warning(
            "%s never occurs in %s/%s and cannot be learned: label some frames with it, or ignore the class "
            "(edgeseg data import --map).",
            ", ".join(missing),
            train.dataset.root,
            train.dataset.split,
        )
