"""Pictures of predictions: frame, truth, prediction and their differences side by side."""

from __future__ import annotations

import cv2
import numpy as np

from edgeseg.data.dataset import Dataset
from edgeseg.fit import unfit
from edgeseg.images import Image
from edgeseg.segmenter import Segmenter
from edgeseg.spec import Rgb

HEIGHT = 224


def colors(classmap: Image, palette: tuple[Rgb, ...]) -> Image:
    """A class map [H, W] as [H, W, 3] uint8 BGR; ids without a color are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = np.array(palette, np.uint8)[:, ::-1]
    return table[classmap]


def strip(frame: Image, truth: Image, prediction: Image, palette: tuple[Rgb, ...], *others: Image) -> Image:
    """frame | truth | prediction | wrong pixels in red over the dimmed frame; the last two for `others` as well.

    All are [H, W(, 3)] of one size.
    """
    row = [frame, colors(truth, palette)]
    for classmap in (prediction, *others):
        wrong = (truth != classmap) & (truth < len(palette))
        differences = frame // 3
        differences[wrong] = (60, 60, 255)
        row += [colors(classmap, palette), differences]
    width = round(frame.shape[1] * HEIGHT / frame.shape[0])
    small = [cv2.resize(p, (width, HEIGHT), interpolation=cv2.INTER_AREA) for p in row]
    gap = np.full((HEIGHT, 4, 3), 255, np.uint8)
    return np.hstack([part for p in small for part in (gap, p)][1:]).astype(np.uint8)


def strips(segmenter: Segmenter, dataset: Dataset, indices: list[int], *others: Segmenter) -> list[Image]:
    """One strip per frame of the dataset named by `indices`, with the predictions of `others` beside it."""
    pictures = []
    for i in indices:
        frame, truth = dataset[i]
        first, *rest = (unfit(one(frame).classmap, one.spec, *truth.shape) for one in (segmenter, *others))
        pictures.append(strip(frame, truth, first, dataset.classes.palette, *rest))
    return pictures
