"""Tiled: frames larger than the network's input, segmented at their own resolution, tile by tile.

Tiles have the size of the network's input and overlap. What is joined are the logits, at the head's stride and on its
grid, so that away from seams the result is that of a network for the whole frame: wherever a tile holds all that a
logit depends on. Where tiles overlap, `gaussian` averages their logits, weighted by a bell whose deviation is an eighth
of the tile (Isensee et al. 2021, nnU-Net); `hard` takes those of the tile in which they lie farthest from its edge.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg import mask
from edgeseg.errors import OptionError, unknown
from edgeseg.heads import semantic
from edgeseg.images import Image
from edgeseg.result import Frame, Result
from edgeseg.segmenter import FRAME, Picture, Segmenter, as_frame
from edgeseg.spec import Spec

BLENDS = ("gaussian", "hard")
DEVIATION = 1 / 8  # of the bell, in tiles
LEAST_WEIGHT = 1e-3  # so that logits in the corner of a single tile are not divided by nothing
EXACT = ("half_pixel", "none")  # upsamplings in which a pixel's logits do not depend on the size of the whole
MOST_PIXELS = 16384  # of a side, as for any network's input


class Tiled:
    """A Segmenter for frames of any size. `overlap`: pixels that neighboring tiles share at least, an eighth of a tile
    where it is None; rounded up to the head's stride.

    Frames smaller than a tile are continued with their border pixels. OptionError for a network whose logits cannot be
    joined, and for an overlap that leaves nothing of a tile.
    """

    def __init__(self, inner: Segmenter, overlap: int | None = None, blend: str = "gaussian"):
        if blend not in BLENDS:
            raise unknown("blend", blend, BLENDS)
        self.inner = inner
        self._head = semantic.of(inner.head)
        if self._head.upsample not in EXACT:
            raise OptionError(
                f"This network's upsampling ({self._head.upsample}) depends on the size of the whole picture.",
                "Its tiles cannot be joined: compile the network for the size of the frames instead (--size).",
            )
        self._blend = blend
        spec = inner.spec
        overlap = min(spec.height, spec.width) // 8 if overlap is None else overlap
        if not 0 <= overlap <= min(spec.height, spec.width) // 2:
            raise OptionError(
                f"Tiles of {spec.width}x{spec.height} cannot overlap by {overlap} pixels.",
                f"Expected 0 to {min(spec.height, spec.width) // 2}: at most half of a tile.",
            )
        self._overlap = overlap
        self._stride: tuple[int, int] | None = None

    @property
    def spec(self) -> Spec:
        """Of one tile."""
        return self.inner.spec

    def __call__(self, image: Picture) -> Result:
        """One frame, as Segmenter takes it."""
        return self._segment(as_frame(image))

    def stream(self, frames: Iterable[Frame]) -> Iterator[Result]:
        for frame in frames:
            yield self._segment(frame)

    def _segment(self, frame: Frame) -> Result:
        begin = time.perf_counter()
        height, width = frame.image.shape[:2]
        if max(height, width) > MOST_PIXELS:
            raise OptionError(
                f"A frame of {width}x{height} is too large.", f"Expected at most {MOST_PIXELS} pixels a side: cut it."
            )
        logits = self._joined(frame.image)
        inferred = time.perf_counter()
        down, across = self._stride or (1, 1)
        whole = replace(self.spec, height=logits.shape[1] * down, width=logits.shape[2] * across, fit="pad")
        classmap = mask.class_map(logits, whole.height, whole.width, self._head.upsample)
        times = {"infer": inferred - begin, "mask": time.perf_counter() - inferred}
        return Result(frame, classmap, times, spec=whole)

    def _joined(self, image: Image) -> mask.Logits:
        """[C, h, w]: the logits of all tiles."""
        down, across = self._strides()
        tile = self.spec.height // down, self.spec.width // across
        rows, columns = (max(own, -(-size // step)) for own, size, step in zip(tile, image.shape, (down, across)))
        bottom, right = rows * down - image.shape[0], columns * across - image.shape[1]
        padded = np.asarray(cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE), np.uint8)
        shared = [-(-self._overlap // step) for step in (down, across)]
        places = [
            (top, left) for top in starts(rows, tile[0], shared[0]) for left in starts(columns, tile[1], shared[1])
        ]
        total = np.zeros((len(self.spec.classes), rows, columns), np.float32)
        weights = np.zeros((rows, columns), np.float32)
        bell = weight(*tile, self._blend)
        for (top, left), logits in self._infer(padded, places):
            cells = slice(top, top + tile[0]), slice(left, left + tile[1])
            if self._blend == "gaussian":
                total[(slice(None), *cells)] += logits * bell
                weights[cells] += bell
            else:
                better = bell > weights[cells]
                total[(slice(None), *cells)][:, better] = logits[:, better]
                weights[cells][better] = bell[better]
        if self._blend == "gaussian":
            total /= weights
        return total

    def _infer(self, image: Image, places: list[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], mask.Logits]]:
        """Each place, in logits, with the tile's logits: a view until the next one is asked for."""
        down, across = self._strides()
        engine, running = self.inner.engine, deque[tuple[int, tuple[int, int]]]()
        try:
            for number, (top, left) in enumerate(places):
                if len(running) == engine.slots:
                    slot, place = running.popleft()
                    yield place, self._head.logits(engine.wait(slot))
                y, x = top * down, left * across
                slot = number % engine.slots
                engine.inputs(slot)[FRAME][:] = image[y : y + self.spec.height, x : x + self.spec.width]
                engine.start(slot)
                running.append((slot, (top, left)))
            while running:
                slot, place = running.popleft()
                yield place, self._head.logits(engine.wait(slot))
        finally:
            for slot, _ in running:
                engine.wait(slot)

    def _strides(self) -> tuple[int, int]:
        """Pixels per logit, (down, across), of which the network's first run tells."""
        if self._stride is None:
            engine = self.inner.engine
            engine.start(0)
            _, h, w = self._head.logits(engine.wait(0)).shape
            if self.spec.height % h or self.spec.width % w:
                raise OptionError(
                    f"This network gives {w}x{h} logits for {self.spec.width}x{self.spec.height} pixels.",
                    "Tiles can be joined only where each logit stands for whole pixels: compile it for another --size.",
                )
            self._stride = self.spec.height // h, self.spec.width // w
        return self._stride


def starts(size: int, tile: int, overlap: float) -> list[int]:
    """Evenly spaced first cells of tiles that cover `size` cells and share at least `overlap` with the next one."""
    count = 1 + max(0, math.ceil((size - tile) / (tile - overlap)))
    return [round(i * (size - tile) / max(1, count - 1)) for i in range(count)]


def weight(height: int, width: int, blend: str) -> NDArray[np.float32]:
    """[height, width]: how much each logit of a tile counts; above 0."""
    if blend == "hard":  # the distance to the nearest edge, in cells; where two tiles tie, the first one stays
        rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) + 1.0 for n in (height, width))
        return np.minimum(rows[:, None], columns[None]).astype(np.float32)
    rows, columns = (np.exp(-(((np.arange(n) - (n - 1) / 2) / (DEVIATION * n)) ** 2) / 2) for n in (height, width))
    return np.maximum(rows[:, None] * columns[None], LEAST_WEIGHT).astype(np.float32)


def tiled(segmenter: Segmenter, tile: bool, overlap: int | None, blend: str) -> Segmenter | Tiled:
    """`segmenter`, or one in tiles of it; OptionError for settings of tiles without tiles."""
    if tile:
        return Tiled(segmenter, overlap, blend)
    if overlap is not None or blend != BLENDS[0]:
        raise OptionError("--overlap and --blend are of tiles.", "Add --tile, or leave them out.")
    return segmenter
