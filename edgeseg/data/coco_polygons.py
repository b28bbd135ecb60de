"""Polygons as pycocotools draws them (https://github.com/cocodataset/cocoapi, rleFrPoly), pixel for pixel."""

from __future__ import annotations

import numpy as np

from edgeseg.errors import MissingPackage
from edgeseg.geometry import rle
from edgeseg.geometry.regions import Points, Region, by_centers, window_of

LONGEST = 1_000_000  # pixels of an outline that pycocotools, which walks along it, is given


def as_coco(ring: Points, height: int, width: int) -> Region:
    """One polygon. A very long outline, which would take the coder's memory, is drawn by its centers."""
    if np.abs(np.diff(ring, axis=0, append=ring[:1])).sum() > LONGEST:
        return by_centers([ring], height, width)
    try:
        from pycocotools import mask as coder
    except ImportError as error:
        raise MissingPackage("pycocotools", "Reading these polygons", "data") from error
    _, y0, _, y1, cut = window_of(ring, height, width)
    (coded,) = coder.frPyObjects([ring.ravel().tolist()], height, width)
    drawn = rle.coco_region(rle.from_coco_text(coded["counts"].decode()), height, width)
    return (
        Region(drawn.x, y0, np.ascontiguousarray(drawn.mask[y0:y1]), cut)
        if drawn.mask.size
        else Region(0, 0, drawn.mask, cut)
    )
