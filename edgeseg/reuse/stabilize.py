"""Stabilizer: classes that do not flicker. Logits are averaged along the motion, and a class is left for another only
where that one is clearly better.

Exponential smoothing s = a new + (1 - a) moved(s before), and hysteresis: the class that a pixel had keeps a lead.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeseg.mask import Logits
from edgeseg.motion import warp
from edgeseg.motion.field import Field, Grid
from edgeseg.spec import Spec

NEWEST = 0.5  # weight of the newest logits, one frame after the latest
LEAD = 0.1  # of the class before, as a share of the mean distance between the best two logits


class Stabilizer:
    """For one stream. `moved` is the motion since the frame of the call before."""

    def __init__(self, spec: Spec):
        self._spec = spec
        self._before: Logits | None = None

    def steady(self, logits: Logits, moved: Field, grid: Grid, frames: int, cut: bool) -> Logits:
        """[C, h, w] logits of one frame, with what came before, so many `frames` ago. A cut forgets that."""
        if cut or self._before is None or self._before.shape != logits.shape:
            self._before = logits.copy()
            return logits
        before = warp.logits(self._before, moved, grid, self._spec)
        old = np.float32((1 - NEWEST) ** frames)
        self._before = (1 - old) * logits + old * before
        out = self._before.copy()
        had: NDArray[np.intp] = before.argmax(0)[None]
        lead = np.take_along_axis(out, had, 0) + np.float32(LEAD * _distance(out))
        np.put_along_axis(out, had, lead, 0)
        return out


def _distance(logits: Logits) -> float:
    """The mean distance between the best and the second best logit."""
    if len(logits) < 2:
        return 0.0
    second, best = np.partition(logits[:, ::4, ::4], -2, axis=0)[-2:]
    return float((best - second).mean())
