"""Pictures: decoded frames (PyAV) as images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeseg.images import Image

if TYPE_CHECKING:
    import av

MATRICES = {10: 9}  # BT.2020 with constant luminance looks nearly like the one without (ITU-T H.273)
UNSPECIFIED = 2


def quarter_turns(frame: av.VideoFrame) -> int:
    """Counterclockwise, as the stream says; PyAV 14.0 does not know."""
    return round(getattr(frame, "rotation", 0) / 90) % 4


class Pictures:
    """Of the stream `name`; what is wrong with all of them is added to `warnings` once."""

    def __init__(self, name: object, warnings: list[str]):
        self._name = name
        self._warnings = warnings
        self._matrix: int | None = None  # in place of the stream's own (ITU-T H.273), once that has failed

    def of(self, frame: av.VideoFrame) -> Image:
        """[H, W, 3] uint8 BGR, turned as the stream says."""
        if self._matrix is not None:
            frame.colorspace = self._matrix
        try:
            image = frame.to_ndarray(format="bgr24")
        except (OSError, ValueError):  # a YUV matrix that FFmpeg cannot convert
            matrix = int(frame.colorspace)
            text = f"{self._name}: colors are approximate: YUV matrix {matrix} is unknown."
            self._warnings += [text] if text not in self._warnings else []
            self._matrix = frame.colorspace = MATRICES.get(matrix, UNSPECIFIED)
            image = frame.to_ndarray(format="bgr24")
        turns = quarter_turns(frame)
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image  # type: ignore[return-value]
