"""Flicker: pixels whose class changes from one frame to the next although nothing there did."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg.images import Image
from edgeseg.motion import warp
from edgeseg.motion.field import Field, Grid
from edgeseg.spec import Spec


class Flicker:
    """Counts over the frames of a clip, in order. What moves is followed, and pixels whose label changes along the
    motion (something came into view) or is ignored do not count."""

    def __init__(self, spec: Spec):
        self._spec = spec
        self._before: tuple[Image, Image] | None = None  # class map, label
        self._changed = np.zeros(256, np.int64)
        self._seen = np.zeros(256, np.int64)

    def add(self, classmap: Image, label: Image, moved: Field, grid: Grid) -> None:
        """Class map and label, [spec.height, spec.width] uint8, and the motion since the frame before."""
        if self._before is not None:
            was, truth = (warp.class_map(image, moved, grid, self._spec) for image in self._before)
            same = (truth == label) & (label < len(self._spec.classes))
            self._seen += _histogram(label[same])
            self._changed += _histogram(label[same & (was != classmap)])
        self._before = classmap, label

    @property
    def share(self) -> float:
        return float(self._changed.sum() / max(1, self._seen.sum()))

    def by_class(self) -> dict[str, float | None]:
        """{class of the label: its share}; None for what never occurs."""
        rows = zip(self._spec.classes, self._changed.tolist(), self._seen.tolist())
        return {name: changed / seen if seen else None for name, changed, seen in rows}


def _histogram(values: Image) -> NDArray[np.int64]:
    return np.bincount(values, minlength=256)
