"""Privacy: pixels of chosen classes are blurred or filled before any sink gets the frame.

What the network does not recognize stays visible: privacy is as good as the model is at these classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from edgeseg.blur import hide
from edgeseg.errors import OptionError, unknown
from edgeseg.fit import OUTSIDE, unfit
from edgeseg.images import Image
from edgeseg.result import Result
from edgeseg.spec import Spec

MARGIN = 4  # pixels of the class map around each region: a cell of a head at a quarter of the size


@dataclass(frozen=True)
class Privacy:
    """`blur` and `fill`: tables [256] uint8, 255 for each class that is hidden that way."""

    blur: Image
    fill: Image

    @classmethod
    def of(cls, spec: Spec, blur: Sequence[str], fill: Sequence[str]) -> Privacy | None:
        """None where no class is hidden; OptionError for one that the model does not have, or that has two ways."""
        if not blur and not fill:
            return None
        for name in (*blur, *fill):
            if name not in spec.classes:
                raise unknown("class", name, spec.classes)
        both = [name for name in blur if name in fill]
        if both:
            raise OptionError(f"The class {both[0]!r} is to be blurred and filled.", "Choose one of the two.")
        return cls(_table(spec, blur), _table(spec, fill))

    def applied(self, result: Result, shown: bool = True) -> Result:
        """The result with a frame that hides the classes; where nobody is `shown` it, with an empty frame of its size.

        What the network does not see (Spec.fit "crop") is hidden, too.
        """
        image = result.frame.image
        if not shown:
            return replace(result, frame=replace(result.frame, image=np.broadcast_to(np.uint8(0), image.shape)))
        assert result.spec is not None
        hidden = image
        for table, fill in ((self.blur, False), (self.fill, True)):
            mask = _mask(result.classmap, result.spec, table, *image.shape[:2])
            if mask is not None:
                hidden = image.copy() if hidden is image else hidden
                hide(hidden, mask, fill)
        return replace(result, frame=replace(result.frame, image=hidden))


def _table(spec: Spec, names: Sequence[str]) -> Image:
    table = np.zeros(256, np.uint8)
    table[[spec.classes.index(name) for name in names]] = 255
    table[OUTSIDE] = 255 * bool(names)
    return table


def _mask(classmap: Image, spec: Spec, table: Image, height: int, width: int) -> Image | None:
    """[height, width] 255 where a class of `table` is, and MARGIN pixels of the class map around it; None: nowhere."""
    mask = cv2.LUT(classmap, table)
    if cv2.countNonZero(mask):
        mask = cv2.dilate(mask, np.ones((2 * MARGIN + 1, 2 * MARGIN + 1), np.uint8))
    elif spec.fit != "crop" or not table.any():
        return None
    inside = unfit(np.asarray(mask, np.uint8), spec, height, width)
    return inside if cv2.countNonZero(inside) else None
