"""FreezeDetector: finds a camera that is connected but sends the same image over and over."""

from __future__ import annotations

from edgeseg.images import Image

SAMPLE_STEP = 16


class FreezeDetector:
    """For how many seconds the images have been the same, byte for byte. A sample of pixels decides in most cases."""

    def __init__(self) -> None:
        self._previous: Image | None = None
        self._since = 0.0

    def seconds(self, image: Image, now: float) -> float:
        """How long the image has not changed, given that `image` ([H, W, 3] uint8) came at `now` seconds."""
        previous, self._previous = self._previous, image
        if previous is None or previous.shape != image.shape or _differ(previous, image):
            self._since = now
        return now - self._since


def _differ(a: Image, b: Image) -> bool:
    sample = (slice(None, None, SAMPLE_STEP),) * 2
    return bool((a[sample] != b[sample]).any()) or bool((a != b).any())
