"""Encoders of video files: frames with any times where PyAV is installed, else, and in AVI, at a constant rate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import cv2

from edgeseg.errors import StreamError
from edgeseg.images import Image

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
CLOCK = 60_000  # ticks a second: the usual frame rates fit, and MPEG-4 (ISO 14496-2, 6.3.3) allows up to 65535
QUANTIZER = 3  # of 1 (best) to 31
LAMBDA = 118  # FFmpeg's FF_QP2LAMBDA
FILL_SECONDS = 10.0


class Encoder(Protocol):
    """A file that is being written. `left_out`: frames that are not in it because their time was taken."""

    left_out: int

    def write(self, image: Image, seconds: float) -> None:
        """Add a frame ([H, W, 3] BGR, always of one size) to be shown at `seconds`, which never goes back."""

    def close(self) -> None: ...


def encoder_for(path: Path) -> type[TimedEncoder] | type[ConstantEncoder]:
    """The encoder of a file, loaded now: loading it takes longer than a camera's frame."""
    if path.suffix.lower() != ".mp4":
        return ConstantEncoder
    try:
        import av  # noqa: F401
    except ImportError:
        return ConstantEncoder
    return TimedEncoder


def refusal(path: Path, width: int, height: int) -> StreamError:
    return StreamError(
        f"No {path.suffix} video of {width}x{height} can be written.",
        "Its encoder is not built in, or the size is not usable; write FILE.avi or a folder of images.",
    )


class TimedEncoder:
    """MPEG-4 through PyAV: every frame once, at its own time."""

    left_out = 0

    def __init__(self, path: Path, width: int, height: int, fps: float):
        import av

        self._path = path
        self._duration = max(1, round(CLOCK / fps))
        self._pts = -1
        try:
            self._container = av.open(str(path.absolute()), "w", format="mp4")
            # A fixed quantizer: the encoder's rate control takes every tick of the clock for a frame.
            options = {"flags": "+qscale", "global_quality": str(QUANTIZER * LAMBDA)}
            self._stream: Any = self._container.add_stream("mpeg4", rate=Fraction(fps).limit_denominator(1001))
            context = self._stream.codec_context
            context.width, context.height, context.pix_fmt = width & ~1, height & ~1, "yuv420p"
            context.time_base = self._stream.time_base = Fraction(1, CLOCK)
            context.options = options
            context.open()
        except (av.error.FFmpegError, ValueError) as error:
            raise refusal(path, width, height) from error

    def write(self, image: Image, seconds: float) -> None:
        import av

        even = image[: image.shape[0] & ~1, : image.shape[1] & ~1]
        frame = av.VideoFrame.from_ndarray(even, "bgr24").reformat(format="yuv420p")
        self._pts = max(round(seconds * CLOCK), self._pts + 1)
        frame.pts, frame.time_base = self._pts, Fraction(1, CLOCK)
        self._mux(frame)

    def _mux(self, frame: Any) -> None:
        import av

        try:
            for packet in self._stream.encode(frame):
                packet.duration = self._duration
                self._container.mux(packet)
        except (av.error.FFmpegError, OSError) as error:
            message = f"Video {self._path} cannot be written: {error.strerror}."
            raise StreamError(message, "The disk may be full.") from None

    def close(self) -> None:
        try:
            self._mux(None)
        finally:
            self._container.close()


class ConstantEncoder:
    """OpenCV's writer, which knows only a constant frame rate: frames are repeated or left out to keep the time."""

    def __init__(self, path: Path, width: int, height: int, fps: float):
        self.left_out = 0
        self._fps = _holdable(fps)
        self._written = 0
        self._skipped_seconds = 0.0
        self._latest: Image | None = None  # shown until the next one
        self._latest_is_out = False
        codec = cv2.VideoWriter.fourcc(*CODECS[path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(path.absolute()), cv2.CAP_FFMPEG, codec, self._fps, (width, height))
        if not self._writer.isOpened():
            raise refusal(path, width, height)

    def write(self, image: Image, seconds: float) -> None:
        # The half keeps a time that was rounded on its own frame.
        due = int((seconds - self._skipped_seconds) * self._fps + 0.5) + 1 - self._written
        if due > FILL_SECONDS * self._fps:  # after a long silence the video goes on, instead of filling the disk
            self._skipped_seconds += (due - 1) / self._fps
            due = 1
        if due > 1 and self._latest_is_out:  # shown after all, in a repetition
            self.left_out -= 1
        self._latest_is_out = due < 1
        self.left_out += self._latest_is_out
        for i in range(due):
            self._writer.write(image if i == due - 1 or self._latest is None else self._latest)
            self._written += 1
        self._latest = image

    def close(self) -> None:
        self._writer.release()


def _holdable(fps: float) -> float:
    """The nearest rate for which OpenCV finds a fraction that MPEG-4 can hold: at most 65535 over a power of ten."""
    return round(fps, 3 if fps < 65 else 2 if fps < 655 else 1)
