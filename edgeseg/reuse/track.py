"""Tracker: the motion of one stream since its latest key frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2

from edgeseg.images import Image
from edgeseg.motion import Motion, field, flow
from edgeseg.motion.field import Field, Grid
from edgeseg.result import Frame

CODED_ANEW = 0.6  # a share of cells: the picture has little to do with the one before
OTHER_PICTURE = 40.0  # levels of gray, mean difference: a cut


@dataclass(frozen=True)
class Step:
    """One frame. `field`: its motion since the latest key frame. `change`: how much happened since the frame before, in
    hundredths of the frame's width of mean motion, and the share that was coded anew. `cut`: another scene or size.
    `reference`: others are described by it, so that it may be a key frame.
    """

    field: Field
    grid: Grid
    change: float
    cut: bool
    reference: bool


class Tracker:
    """follow() every frame in order, restart() after one that became a key frame."""

    def __init__(self) -> None:
        self._grid: Grid | None = None
        self._before: Image | None = None  # the latest picture
        self._thumbnail: tuple[Image, flow.Thumbnail] | None = None  # a picture and its own
        self._since_key: Field | None = None  # of the latest picture that others refer to
        self._latest: Field | None = None  # from one such picture to the next

    def follow(self, frame: Frame) -> Step:
        grid = Grid(*frame.image.shape[:2])
        before, self._before = self._before, frame.image
        if before is None or grid != self._grid or self._since_key is None:
            self._grid, self._since_key, self._latest = grid, grid.still(), None
            return Step(grid.still(), grid, 0.0, cut=True, reference=True)
        if frame.motion is None:
            return self._by_flow(before, frame.image, grid)
        change, reference, now = 0.0, True, self._since_key
        for motion in frame.motion:  # of the frames that were dropped, too
            moved, anew = self._moved(motion, grid)
            now = field.compose(self._since_key, moved, grid)
            change += _change(moved, grid) + anew
            if reference := motion.reference:
                self._since_key, self._latest = now, moved
        by_itself = any(len(motion.blocks) == 0 for motion in frame.motion)
        cut = (by_itself or anew > CODED_ANEW) and _differ(*self._thumbnails(before, frame.image))
        return Step(now, grid, change, cut, reference)

    def restart(self) -> None:
        """The frame that was followed last is a key frame: motion counts from it."""
        assert self._grid is not None
        self._since_key = self._grid.still()

    def _moved(self, motion: Motion, grid: Grid) -> tuple[Field, float]:
        """The motion of one coded picture, and the share of it that was coded anew."""
        if len(motion.blocks) == 0:  # an I-frame: most likely what moved goes on as it did
            return (grid.still() if self._latest is None else self._latest), 1.0
        moved, known = field.of_blocks(motion.blocks, grid)
        return field.fill_holes(moved, known), 1.0 - float(known.mean())

    def _by_flow(self, before: Image, now: Image, grid: Grid) -> Step:
        assert self._since_key is not None
        then, small = self._thumbnails(before, now)
        if _differ(then, small):
            return Step(grid.still(), grid, 1.0, cut=True, reference=True)
        moved = flow.field(then, small, grid)
        self._since_key = field.compose(self._since_key, moved, grid)
        return Step(self._since_key, grid, _change(moved, grid), cut=False, reference=True)

    def _thumbnails(self, before: Image, now: Image) -> tuple[flow.Thumbnail, flow.Thumbnail]:
        """Of two pictures that follow each other; that of the second is kept for the next time."""
        then = self._thumbnail[1] if self._thumbnail and self._thumbnail[0] is before else flow.thumbnail(before)
        self._thumbnail = now, flow.thumbnail(now)
        return then, self._thumbnail[1]


def _change(moved: Field, grid: Grid) -> float:
    return float(abs(moved).mean()) / grid.width * 100


def _differ(then: flow.Thumbnail, now: flow.Thumbnail) -> bool:
    return float(cv2.absdiff(then, now).mean()) > OTHER_PICTURE
