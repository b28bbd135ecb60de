"""Test-time augmentation: mirrored, enlarged and in sliding windows. For evaluating a teacher, not for a device.

The network's window stays as it is: at scale s the frame is enlarged to s times the window and covered by windows that
overlap by half; softmax outputs are averaged where they overlap, over mirrors and over scales.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import OptionError
from edgeseg.fit import fit_frame
from edgeseg.heads import semantic
from edgeseg.images import Image, resize
from edgeseg.result import Frame, Result
from edgeseg.segmenter import Segmenter
from edgeseg.spec import Spec
from edgeseg.tiling import starts

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Augmented:
    """A Segmenter that averages several runs of its network per frame. Scale 1 alone with no flip changes nothing."""

    inner: Segmenter
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) < 1 or max(self.scales) > 4:
            raise OptionError(
                f"Scales {', '.join(f'{s:g}' for s in self.scales) or 'none'} cannot be evaluated.",
                "Expected numbers from 1 to 4: the window of the network is fixed, so frames can only be enlarged.",
            )

    @property
    def spec(self) -> Spec:
        return self.inner.spec

    def stream(self, frames: Iterable[Frame]) -> Iterator[Result]:
        for frame in frames:
            begin = time.perf_counter()
            total = np.sum([self._at(frame.image, scale) for scale in self.scales], axis=0)
            yield Result(frame, np.asarray(total.argmax(0), np.uint8), {"infer": time.perf_counter() - begin})

    def _at(self, image: Image, scale: float) -> Scores:
        """[C, H, W] mean softmax at the network's size."""
        height, width = self.spec.height, self.spec.width
        if self.spec.fit != "stretch":
            image = fit_frame(image, self.spec)
        large = resize(image, round(height * scale), round(width * scale))
        total = np.zeros((len(self.spec.classes), *large.shape[:2]), np.float32)
        weight = np.zeros(large.shape[:2], np.float32)
        for top in starts(large.shape[0], height, height / 2):
            for left in starts(large.shape[1], width, width / 2):
                window = np.ascontiguousarray(large[top : top + height, left : left + width])
                scores = self._scores(window)
                total[:, top : top + height, left : left + width] += scores
                weight[top : top + height, left : left + width] += 1
        mean = np.asarray(total / weight, np.float32)
        if scale == 1:
            return mean
        planes = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA) for plane in mean]
        return np.stack(planes).astype(np.float32)

    def _scores(self, window: Image) -> Scores:
        scores = self._softmax(window)
        if self.flip:
            mirrored = self._softmax(np.ascontiguousarray(window[:, ::-1]))
            scores = np.asarray((scores + mirrored[:, :, ::-1]) / 2, np.float32)
        return scores

    def _softmax(self, window: Image) -> Scores:
        engine = self.inner.engine
        engine.inputs(0)["frame"][:] = window
        engine.start(0)
        logits = semantic.of(self.inner.head).full_logits(engine.wait(0))
        powers = np.exp(logits - logits.max(0))
        return np.asarray(powers / powers.sum(0), np.float32)
