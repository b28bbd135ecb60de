"""What --reuse auto needs to know of a bundle: what a difference that it sees is worth in mIoU, on a labeled clip."""

from __future__ import annotations

import numpy as np

from edgeseg.data.dataset import Dataset
from edgeseg.errors import FileError
from edgeseg.evaluation.clip import ClipFrames, evaluate_clip
from edgeseg.results.common import ReuseCalibration
from edgeseg.reuse.policy import FixedInterval
from edgeseg.segmenter import Segmenter

INTERVALS = (2, 3, 4, 6)
LEAST_FRAMES = 24
LIMITS = (0.05, 5.0)  # of what is believable, points for each percent of the pixels


class _Watched(FixedInterval):
    """Keeps the differences that a policy may learn from."""

    learns = True

    def __init__(self, every: int):
        super().__init__(every)
        self.differences: list[float] = []

    def learn(self, difference: float, interval: int) -> None:
        self.differences.append(difference)


def calibrate(segmenter: Segmenter, clip: Dataset) -> ReuseCalibration:
    """Every interval of INTERVALS on the clip: points of mIoU lost, over the difference at the end of the interval less
    that of neighboring frames. FileError for a clip that is too short to say."""
    if len(clip) < LEAST_FRAMES:
        raise FileError(f"Clip {clip.root / clip.split} has {len(clip)} frames.", f"Expected {LEAST_FRAMES} or more.")
    frames = ClipFrames(clip)
    drops: dict[int, float] = {}
    differences: dict[int, float] = {}
    for every in (1, *INTERVALS):
        watched = _Watched(every)
        result = evaluate_clip(segmenter, clip, frames, lambda stream: watched)  # noqa: B023 -- used at once
        drops[every] = result.drop.value or 0.0
        differences[every] = float(np.mean(watched.differences))
    excess = np.array([100 * max(differences[k] - differences[1], 0.0) for k in INTERVALS])
    lost = np.array([max(drops[k], 0.0) for k in INTERVALS])
    points = float(lost @ excess / max(excess @ excess, 1e-9))  # least squares through nothing
    height, width = clip[0][0].shape[:2]
    return ReuseCalibration(
        points=round(min(max(points, LIMITS[0]), LIMITS[1]), 4),
        clip=clip.split,
        frames=len(clip),
        size=(width, height),
        drops={str(k): round(drops[k], 4) for k in INTERVALS},
    )
