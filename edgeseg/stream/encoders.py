"""Encoders of video files: H.264 with any times where PyAV is installed, else, and in AVI, at a constant rate."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import cv2

from edgeseg.errors import OptionError, StreamError
from edgeseg.images import Image
from edgeseg.stream.sinks import require_space

CODECS = {".mp4": "mp4v", ".mkv": "MJPG", ".avi": "MJPG"}  # of OpenCV
CLOCK = 60_000  # ticks a second: the usual frame rates fit, and MPEG-4 (ISO 14496-2, 6.3.3) allows up to 65535
QUANTIZER = 3  # of 1 (best) to 31
LAMBDA = 118  # FFmpeg's FF_QP2LAMBDA
FILL_SECONDS = 10.0
# Pieces of half a second, so that what was written plays even if the process is killed. Those of an mp4 are hidden when
# the file is finished, for players that know none.
CONTAINERS = {
    ".mp4": ("mp4", {"movflags": "hybrid_fragmented", "frag_duration": "500000", "flush_packets": "1"}),
    ".mkv": ("matroska", {"cluster_time_limit": "500", "flush_packets": "1"}),
}
KEY_SECONDS = 4.0  # how far apart a player may jump to
PROBE_SIZE = (320, 256)
# FFmpeg's names of encoders, the preferred first, with what makes them fast, and give each frame out at once: one that
# waits for later frames would lose them in a kill. Those of chips come last and are used only where they are asked for.
ENCODERS = {
    "libx264": {"preset": "superfast", "tune": "zerolatency", "crf": "21"},
    "libopenh264": {"b": "6M", "allow_skip_frames": "0"},
    # A fixed quantizer: the encoder's rate control takes every tick of the clock for a frame.
    "mpeg4": {"flags": "+qscale", "global_quality": str(QUANTIZER * LAMBDA)},
    "h264_nvenc": {"preset": "p4", "rc": "constqp", "qp": "23", "delay": "0", "zerolatency": "1"},
    "h264_qsv": {"preset": "veryfast", "global_quality": "23", "async_depth": "1"},
    "h264_amf": {"usage": "lowlatency", "rc": "cqp", "qp_i": "23", "qp_p": "23"},
    "h264_v4l2m2m": {"b": "6M"},
    "h264_nvmpi": {"b": "6M"},
    "h264_rkmpp": {"b": "6M"},
    "h264_omx": {"b": "6M"},
    "h264_videotoolbox": {"b": "6M", "realtime": "1"},
}
UNUSABLE = {
    "h264_vaapi": "it takes frames in video memory, where PyAV puts none",
    "nvv4l2h264enc": "it is an element of GStreamer; FFmpeg's of a Jetson is h264_nvmpi",
}
ON_CPU = ("libx264", "libopenh264", "mpeg4")
BT601, BT709 = 6, 1  # codes of ITU-T H.273: the matrix that conversion uses, the primaries and transfer of screens
MEASURE_SECONDS = 1.5
MEASURE_FRAMES = 180
SLACK_SECONDS = 0.25
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 95)


class Encoder(Protocol):
    """A file that is being written. `left_out`: frames that are not in it because their time was taken; never falls."""

    @property
    def left_out(self) -> int: ...

    def write(self, image: Image, seconds: float) -> None:
        """Add a frame ([H, W, 3] BGR, always of one size) to be shown at `seconds`, which never goes back."""

    def close(self) -> None: ...


OpenEncoder = Callable[[Path, int, int, float], Encoder]


def encoder_for(path: Path, live: bool = False, rate_given: bool = False, codec: str = "") -> OpenEncoder:
    """The encoder of a file, loaded now: loading it takes longer than a camera's frame.

    `live`: times are a camera's; `rate_given`: somebody asked for a frame rate, so that it need not be measured;
    `codec`: one of ENCODERS by name. OptionError where that cannot be used here.
    """
    if path.suffix.lower() in CONTAINERS:
        with suppress(ImportError):
            import av  # noqa: F401

            return functools.partial(TimedEncoder, codec=_checked(codec) if codec else _preferred())
    if codec:
        raise OptionError(
            f"encoder={codec} of {path}: only .mp4 and .mkv files through PyAV have a choice.",
            "Install it with: pip install 'edgeseg[camera]'",
        )
    if not live:
        return ConstantEncoder
    return functools.partial(ConstantEncoder, slack=SLACK_SECONDS) if rate_given else MeasuredEncoder


@functools.cache
def _preferred() -> str:
    import av

    return next(name for name in ON_CPU if name in av.codecs_available)


def _checked(codec: str) -> str:
    """`codec`, if it encodes a frame here; OptionError with those that do."""
    reason = _failure(codec) if codec in ENCODERS else UNUSABLE.get(codec, "edgeseg does not know it")
    if reason:
        there = ", ".join(name for name in ENCODERS if not _failure(name))
        raise OptionError(f"The encoder {codec} cannot be used: {reason}.", f"On this machine there are: {there}.")
    return codec


@functools.cache
def _failure(codec: str) -> str:
    """Why a frame cannot be encoded with it on this machine; "" if it can."""
    import av

    if codec not in av.codecs_available:
        return "PyAV was built without it"
    try:
        context: Any = av.CodecContext.create(codec, "w")
        _set_up(context, codec, *PROBE_SIZE, fps=25.0)
        context.open()
        frame: Any = av.VideoFrame(*PROBE_SIZE, _format_of(context.codec))
        frame.pts, frame.time_base = 0, Fraction(1, CLOCK)
        list(context.encode(frame))
    except (av.error.FFmpegError, ValueError, TypeError, OSError) as error:
        return f"it does not open ({getattr(error, 'strerror', None) or error})"
    return ""


def _set_up(context: Any, codec: str, width: int, height: int, fps: float) -> None:
    context.width, context.height = width & ~1, height & ~1
    context.pix_fmt = _format_of(context.codec)
    context.framerate = Fraction(fps).limit_denominator(1001)
    context.time_base = Fraction(1, CLOCK)
    context.max_b_frames = 0
    context.gop_size = max(1, min(round(fps * KEY_SECONDS), 600))
    context.colorspace, context.color_primaries, context.color_trc = BT601, BT709, BT709
    context.color_range = 1  # limited
    context.options = ENCODERS[codec]


def refusal(path: Path, width: int, height: int) -> StreamError:
    return StreamError(
        f"No {path.suffix} video of {width}x{height} can be written.",
        "Its encoder is not built in, or the size is not usable; write FILE.avi or a folder of images.",
    )


def _format_of(codec: Any) -> str:
    """The pixel format of those that an encoder takes: chips may want their chroma interleaved."""
    formats = [each.name for each in codec.video_formats or ()]
    return "nv12" if formats and "yuv420p" not in formats else "yuv420p"


class TimedEncoder:
    """H.264 or MPEG-4 through PyAV: every frame once, at its own time."""

    left_out = 0

    def __init__(self, path: Path, width: int, height: int, fps: float, codec: str = ""):
        import av

        self._path = path
        self._folder = path.absolute().parent
        self._duration = max(1, round(CLOCK / fps))
        self._pts = -1
        kind, options = CONTAINERS[path.suffix.lower()]
        codec = codec or _preferred()
        try:
            self._container = av.open(str(path.absolute()), "w", format=kind, options=options)
            self._stream: Any = self._container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
            _set_up(self._stream.codec_context, codec, width, height, fps)
            self._stream.time_base = Fraction(1, CLOCK)
            self._stream.codec_context.open()
        except (av.error.FFmpegError, ValueError) as error:
            raise refusal(path, width, height) from error
        self._format = _format_of(self._stream.codec_context.codec)

    def write(self, image: Image, seconds: float) -> None:
        import av

        require_space(self._folder)
        even = image[: image.shape[0] & ~1, : image.shape[1] & ~1]
        frame = av.VideoFrame.from_ndarray(even, "bgr24").reformat(format=self._format)
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
    """OpenCV's writer, which knows only a constant frame rate: frames are repeated or left out to keep the time.

    `slack`: by how many seconds a frame may stand before or after its time, so that jitter loses none.
    """

    def __init__(self, path: Path, width: int, height: int, fps: float, slack: float = 0.0):
        self._folder = path.absolute().parent
        self._fps = _holdable(fps)
        self._slack = round(slack * self._fps)  # frames
        self._left_out = 0
        self._written = 0
        self._skipped_seconds = 0.0
        self._latest: Image | None = None  # shown until the next one
        self._latest_is_out = False
        codec = cv2.VideoWriter.fourcc(*CODECS[path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(path.absolute()), cv2.CAP_FFMPEG, codec, self._fps, (width, height))
        if not self._writer.isOpened():
            raise refusal(path, width, height)

    @property
    def left_out(self) -> int:
        return self._left_out

    def write(self, image: Image, seconds: float) -> None:
        require_space(self._folder)  # OpenCV says nothing of what it could not write
        # The half keeps a time that was rounded on its own frame.
        due = int((seconds - self._skipped_seconds) * self._fps + 0.5) + 1 - self._written
        if due > FILL_SECONDS * self._fps:  # after a long silence the video goes on, instead of filling the disk
            self._skipped_seconds += (due - 1) / self._fps
            due = 1
        if 1 - self._slack <= due <= 1 + self._slack:
            due = 1
        self._left_out += self._latest_is_out and due <= 1  # else it is shown after all, in a repetition
        self._latest_is_out = due < 1
        for i in range(due):
            self._writer.write(image if i == due - 1 or self._latest is None else self._latest)
            self._written += 1
        self._latest = image

    def close(self) -> None:
        self._left_out += self._latest_is_out
        self._latest_is_out = False
        self._writer.release()


class MeasuredEncoder:
    """A ConstantEncoder at the rate at which a camera's frames come: what cameras say of it may be anything.

    The frames of the first MEASURE_SECONDS wait as JPEGs.
    """

    def __init__(self, path: Path, width: int, height: int, fps: float):
        self._open = functools.partial(ConstantEncoder, path, width, height, slack=SLACK_SECONDS)
        self._folder = path.absolute().parent
        self._fps = fps  # for a file of a single frame
        self._waiting: list[tuple[Any, float]] = []
        self._not_written = 0  # of those that waited
        self._encoder: ConstantEncoder | None = None

    @property
    def left_out(self) -> int:
        return self._not_written + (self._encoder.left_out if self._encoder else 0)

    def write(self, image: Image, seconds: float) -> None:
        if self._encoder is not None:
            self._encoder.write(image, seconds)
            return
        require_space(self._folder)
        self._waiting.append((cv2.imencode(".jpg", image, JPEG)[1], seconds))
        if seconds - self._waiting[0][1] >= MEASURE_SECONDS or len(self._waiting) == MEASURE_FRAMES:
            self._begin()

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, []
        seconds = waiting[-1][1] - waiting[0][1]
        rate = (len(waiting) - 1) / seconds if seconds > 0 else self._fps
        self._encoder = self._open(fps=min(max(rate, 0.1), 1000.0))
        self._not_written = len(waiting)
        for jpeg, at in waiting:
            self._encoder.write(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), at)  # type: ignore[arg-type]
            self._not_written -= 1

    def close(self) -> None:
        try:
            if self._waiting:
                self._begin()
        finally:
            if self._encoder is not None:
                self._encoder.close()


def _holdable(fps: float) -> float:
    """The nearest rate for which OpenCV finds a fraction that MPEG-4 can hold: at most 65535 over a power of ten."""
    return round(fps, 3 if fps < 65 else 2 if fps < 655 else 1)
