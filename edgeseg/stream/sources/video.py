"""Video files, through OpenCV's FFmpeg.

`clip.mp4?live=1` plays at the file's own pace and behaves like a camera (late frames are dropped); `?loop=1` starts
over at the end; `?max_megapixels=N` moves the limit on the frame size. Frames carry their media time, so that a
variable frame rate is kept.
"""

from __future__ import annotations

from pathlib import Path

import cv2

from edgeseg.errors import FileError
from edgeseg.files import require_file
from edgeseg.images import IMAGE_SUFFIXES, Image
from edgeseg.result import Frame
from edgeseg.stream.av_capture import AvCapture
from edgeseg.stream.clock import SYSTEM_CLOCK, Clock
from edgeseg.stream.pace import Pace
from edgeseg.stream.pictures import Pictures
from edgeseg.stream.sources import MAX_MEGAPIXELS, EndOfStream, Source, check_size
from edgeseg.stream.uri import Uri, flag, number

FORMS = "FILE.mp4"
DEFAULT_FPS = 25.0
OPTIONS = {"live": flag, "loop": flag, "max_megapixels": number(0.001, 10_000)}


def claims(uri: Uri) -> bool:
    path = Path(uri.path)
    special = path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES or any(c in uri.path for c in "*?[")
    return not uri.scheme and not uri.path.startswith("/dev/") and (path.is_file() or not special)


def open(uri: Uri) -> Source:
    path, options = uri.split(OPTIONS)
    if Path(path).is_fifo():  # opening one waits for its writer, and nothing would end that
        raise FileError(
            f"{path} is a pipe, not a video file.",
            "Send it over the network instead: ffmpeg -re -i PIPE -f mpegts udp://127.0.0.1:5000",
        )
    return Video(Path(path), **options)


class Video(Source):
    def __init__(
        self,
        path: Path,
        live: bool = False,
        loop: bool = False,
        max_megapixels: float = MAX_MEGAPIXELS,
        clock: Clock = SYSTEM_CLOCK,
    ):
        super().__init__()
        self._clock = clock
        self.path = require_file(path, "Video")
        self.live = live
        self._loop = loop
        self._limit = max_megapixels
        self._index = 0
        self._motion = False
        self._capture: cv2.VideoCapture | AvCapture
        self._capture, first = self._start()
        self._next: Image | None = first
        self._pts = 0.0
        self._pts_offset = 0.0  # of the round, when it loops
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0.1 <= fps <= 1000 else None  # a header may say anything
        declared = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count = declared if declared > 0 and not loop else None
        self._pace = Pace(self.fps or DEFAULT_FPS, self._clock) if live else None

    def use_motion(self) -> None:
        self._motion = True
        self._capture.release()
        self._capture, self._next = self._start()

    def _start(self) -> tuple[cv2.VideoCapture | AvCapture, Image]:
        pictures = Pictures(f"Video {self.path}", self.warnings)
        # Not the bare name: FFmpeg takes what stands before a colon (12:30:00.mp4) for a protocol.
        other = AvCapture.open(self.path, pictures, self._motion)
        capture = other or cv2.VideoCapture(str(self.path.absolute()), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise FileError(
                f"Video {self.path} cannot be opened.",
                "It is not a video, or is cut off before its index, or its codec is not built in. "
                "Copy it again, or re-encode it: ffmpeg -i IN -c:v libx264 OUT.mp4",
            )
        width, height = (int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        check_size(width, height, f"Video {self.path}", self._limit)
        ok, first = capture.read()
        if not ok:
            raise FileError(
                f"Video {self.path} opens, but no frame of it can be decoded.",
                "It is cut off or its codec is not built in. Copy it again, or re-encode it with ffmpeg.",
            )
        return capture, first  # type: ignore[return-value]

    def read(self, timeout: float) -> Frame | None:
        if self._pace and not self._pace.wait(timeout):
            return None
        image, self._next = self._next, None
        if image is None:
            ok, image = self._capture.read()  # type: ignore[assignment]
            if not ok:
                self._end_or_restart()
                image, self._next = self._next, None
        assert image is not None
        self._pts = self._media_time()
        self._index += 1
        motion = self._capture.motion if isinstance(self._capture, AvCapture) else None
        return Frame(image, self._index - 1, self._clock.monotonic(), pts=self._pts, motion=motion)

    def _media_time(self) -> float:
        """Seconds of the frame that was just read; where the file has none, or one that goes back, by its rate."""
        pts = self._pts_offset + self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        return pts if pts > self._pts or self._index == 0 else self._pts + 1 / (self.fps or DEFAULT_FPS)

    def _end_or_restart(self) -> None:
        if self._loop:
            self._capture.release()
            self._capture, self._next = self._start()
            self._pts_offset = self._pts + 1 / (self.fps or DEFAULT_FPS)
            return
        # A header's count may be off by a frame or so in good files; more than that is a file that was cut off.
        if self.count and self.count - self._index > max(2, self.count // 200):
            self.warnings.append(
                f"Video {self.path} ended after {self._index} of {self.count} frames: it is truncated or damaged."
            )
        raise EndOfStream

    def close(self) -> None:
        self._capture.release()
