"""AvCapture: a video file through PyAV, in place of cv2.VideoCapture, which does not give motion vectors, and whose
pictures are whatever was in memory where it cannot convert the colors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from edgeseg.images import Image
from edgeseg.motion import Motion, vectors
from edgeseg.stream.pictures import Pictures, quarter_turns

if TYPE_CHECKING:
    import av


CONVERTED = (0, 1, 2, 4, 5, 6, 7, 9)  # YUV matrices (ITU-T H.273) that FFmpeg's scaler knows


class AvCapture:
    """What of cv2.VideoCapture sources.video uses, and `motion` of the frame that was read last."""

    def __init__(self, container: av.container.InputContainer, pictures: Pictures):
        self.motion: tuple[Motion, ...] | None = None
        self._container = container
        self._pictures = pictures
        stream = container.streams.video[0]
        context = stream.codec_context
        rate = stream.average_rate or stream.guessed_rate
        self._properties: dict[int, Callable[[], float]] = {
            cv2.CAP_PROP_FRAME_WIDTH: lambda: context.width,
            cv2.CAP_PROP_FRAME_HEIGHT: lambda: context.height,
            cv2.CAP_PROP_FPS: lambda: float(rate or 0),
            cv2.CAP_PROP_FRAME_COUNT: lambda: stream.frames,
            cv2.CAP_PROP_POS_MSEC: lambda: 1e3 * self._seconds,
        }
        self._tells_motion = context.name in vectors.CODECS
        if self._tells_motion:
            context.options = vectors.OPTIONS
        self._gap = True  # the frame before is missing
        self._seconds = 0.0
        self._begin = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
        self._frames: Iterator[av.VideoFrame] = container.decode(stream)

    @classmethod
    def open(cls, path: Path, pictures: Pictures, motion: bool) -> AvCapture | None:
        """None where OpenCV reads the file as well: without `motion` or a codec that tells any, and with colors that it
        can convert. None, too, without PyAV.
        """
        try:
            import av
        except ImportError:
            return None
        try:
            container = av.open(str(path.absolute()))
        except (av.error.FFmpegError, ValueError):
            return None
        streams = container.streams.video
        context = streams[0].codec_context if streams else None
        if context is None or not (
            (motion and context.name in vectors.CODECS) or int(context.colorspace) not in CONVERTED
        ):
            container.close()
            return None
        return cls(container, pictures)

    def isOpened(self) -> bool:
        return True

    def get(self, prop: int) -> float:
        return self._properties[prop]()

    def read(self) -> tuple[bool, Image | None]:
        """As cv2.VideoCapture: a frame that does not decode is the end."""
        import av

        try:
            frame = next(self._frames)
        except (StopIteration, av.error.FFmpegError):
            return False, None
        if frame.time is not None:
            self._seconds = frame.time - self._begin
        gap, self._gap = self._gap or frame.is_corrupt, False
        self.motion = None if gap or not self._tells_motion or quarter_turns(frame) else (vectors.of_frame(frame),)
        return True, self._pictures.of(frame)

    def release(self) -> None:
        self._container.close()
