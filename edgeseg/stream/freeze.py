"""FreezeDetector: finds a camera that is connected but sends the same image over and over.

Decoded H.264 of one picture is not the same byte for byte: the quantization noise changes a little at each key frame,
and settles within a few of them. Measured with x264 (day and night, CRF 23 and 32, tests/stream/test_stream_freeze.py):
then a frozen picture differs from its first frame by 0.08 levels on average and 6 at most. A scene that stands still in
front of a sensor with noise (sigma 0.7 levels and more) differs by 0.43 and more. Where the bit rate is far too low
(0.5 Mbit/s for a detailed street) the two cannot be told apart, and such a picture counts as alive.
"""

from __future__ import annotations

import cv2
import numpy as np

from edgeseg.images import Image

SAMPLE_STEP = 16
SAME_MEAN = 0.1  # levels
SAME_LEVELS = 6
CHANGED_SHARE = 1e-4  # of the values: more of them changed by over SAME_LEVELS is something that moves, however small


class FreezeDetector:
    """For how many seconds the images have been like the first of them. A sample of pixels decides in most cases."""

    def __init__(self) -> None:
        self._reference: Image | None = None
        self._since = 0.0

    def seconds(self, image: Image, now: float) -> float:
        """How long the image has not changed, given that `image` ([H, W, 3] uint8) came at `now` seconds."""
        if self._reference is None or self._reference.shape != image.shape or _differ(self._reference, image):
            self._reference = image
            self._since = now
        return now - self._since


def _differ(a: Image, b: Image) -> bool:
    sample = (slice(None, None, SAMPLE_STEP),) * 2
    return _changed(a[sample], b[sample], 4 * SAME_MEAN, 0.05) or _changed(a, b, SAME_MEAN, CHANGED_SHARE)


def _changed(a: Image, b: Image, mean: float, share: float) -> bool:
    difference = cv2.absdiff(np.ascontiguousarray(a), np.ascontiguousarray(b))
    return bool(difference.mean() > mean or np.count_nonzero(difference > SAME_LEVELS) > share * difference.size)
