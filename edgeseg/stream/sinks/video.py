"""Video files: `out.mp4` (MPEG-4) or `out.avi` (Motion JPEG). `?fps=15` sets the rate where the source has none.

A temporary name is renamed on close, so that the file is whole or not there; an interrupted run is finished properly.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2

from edgeseg.errors import StreamError
from edgeseg.images import Image, resize
from edgeseg.segmenter import Result
from edgeseg.stream.sinks import Info, Sink, check_writable, require_space
from edgeseg.stream.uri import Uri, number

FORMS = "FILE.mp4, FILE.avi"
CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
FILL_SECONDS = 10.0
SPACE_EVERY = 16


def claims(uri: Uri) -> bool:
    path = Path(uri.path)
    return not uri.scheme and path.suffix.lower() in CODECS and not path.is_dir()


def open(uri: Uri, info: Info) -> Sink:
    path, options = uri.split({"fps": number(0.1, 1000)})
    target = Path(path)
    if info.part:  # the parts before it are finished files
        target = target.with_stem(f"{target.stem}-{info.part + 1}")
    return VideoFile(target, options.get("fps") or info.fps or 25.0, info.live)


class VideoFile(Sink):
    needs_image = True

    def __init__(self, path: Path, fps: float, live: bool):
        super().__init__()
        self.path = path
        self._fps = fps
        self._live = live
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._written = 0
        self._started = 0.0
        check_writable(self._temporary)

    def write(self, result: Result, image: Image | None) -> None:
        assert image is not None
        if self._writer is None:
            self._start(image, result.frame.captured)
        assert self._writer is not None
        if self._written % SPACE_EVERY == 0:
            require_space(self.path.parent)
        width, height = self._size
        if image.shape[:2] != (height, width):
            self._note_resize()
            image = resize(image, height, width)
        for _ in range(self._copies(result.frame.captured)):
            self._writer.write(image)
            self._written += 1

    def _start(self, image: Image, captured: float) -> None:
        self._size = (image.shape[1], image.shape[0])
        self._started = captured
        codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(self._temporary), cv2.CAP_FFMPEG, codec, self._fps, self._size)
        if not self._writer.isOpened():
            raise StreamError(
                f"No {self.path.suffix} video of {self._size[0]}x{self._size[1]} can be written.",
                "Its encoder is not built in, or the size is not usable; write FILE.avi or a folder of images.",
            )

    def _copies(self, captured: float) -> int:
        """How often to write a frame: a camera's frames come as they come; repeat or skip to keep the clock right."""
        if not self._live:
            return 1
        due = int((captured - self._started) * self._fps) + 1 - self._written
        if due > FILL_SECONDS * self._fps:  # after a long silence the video goes on, instead of filling the disk
            self._started += (due - 1) / self._fps
            return 1
        return max(due, 0)

    def _note_resize(self) -> None:
        text = f"{self.path}: the frame size changed; frames are stretched to {self._size[0]}x{self._size[1]}."
        if text not in self.warnings:
            self.warnings.append(text)

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None or not self._written:
            self._temporary.unlink(missing_ok=True)
            return
        writer.release()  # does not report a full disk, so look at what it left
        if not cv2.VideoCapture(str(self._temporary)).isOpened():
            self._temporary.unlink(missing_ok=True)
            raise StreamError(f"Video {self.path} could not be finished.", "The disk may be full.")
        self._temporary.replace(self.path)
        self.files = [self.path]
        self._written = 0
