"""Augmented frames as training sees them, as pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeseg.data.dataset import Dataset
from edgeseg.images import Image
from edgeseg.recipe import Recipe, Role
from edgeseg.spec import Spec
from edgeseg.training.loader import SegmentationDataset

OTHERS = 16


def augmented(dataset: Dataset, recipe: Recipe, role: Role, index: int, count: int) -> Iterator[tuple[Image, Image]]:
    """Frame `index` of the dataset in the first `count` epochs of training: [H, W, 3] uint8 BGR, and its mask [H, W].

    Ignored pixels, and those outside of the frame, are 255 in the mask. What is pasted comes from a few frames, evenly
    spaced, so that the preview of a large dataset is quick.
    """
    (height, width), names = recipe.data.size, dataset.classes.names
    spec = Spec(height=height, width=width, classes=names, fit=recipe.data.fit)
    few = [index]
    if role.cutmix or role.copy_paste:
        few += [i for i in range(len(dataset)) if i != index][:: -(-len(dataset) // OTHERS)]
    frames = SegmentationDataset(dataset.take(few), spec, role, recipe.seed + index)
    for epoch in range(count):
        frames.epoch = epoch
        image, labels = frames[0][:2]
        rgb = image.numpy().transpose(1, 2, 0) * spec.std + spec.mean
        yield np.clip(255 * rgb[..., ::-1] + 0.5, 0, 255).astype(np.uint8), labels.numpy().astype(np.uint8)
