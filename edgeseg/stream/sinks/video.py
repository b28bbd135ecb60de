"""Video files: `out.mp4` (MPEG-4) or `out.avi` (Motion JPEG).

Frames keep their times: a file's media time, a camera's time of capture. An mp4 holds any times if the extra `camera`
(PyAV) is installed; else, and in an avi, the rate is constant, and frames are repeated or left out. `?fps=15` gives
every frame of a file the same time instead, and sets the rate where the source has none.

A temporary name is renamed on close, so that the file is whole or not there; an interrupted run is finished properly.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2

from edgeseg.errors import StreamError
from edgeseg.images import Image, resize
from edgeseg.segmenter import Frame, Result
from edgeseg.stream.encoders import CODECS, Encoder, encoder_for
from edgeseg.stream.sinks import Info, Sink, check_writable, require_space
from edgeseg.stream.uri import Uri, number

FORMS = "FILE.mp4, FILE.avi"
SPACE_EVERY = 16


def claims(uri: Uri) -> bool:
    path = Path(uri.path)
    return not uri.scheme and path.suffix.lower() in CODECS and not path.is_dir()


def open(uri: Uri, info: Info) -> Sink:
    path, options = uri.split({"fps": number(0.1, 1000)})
    target = Path(path)
    if info.part:  # the parts before it are finished files
        target = target.with_stem(f"{target.stem}-{info.part + 1}")
    return VideoFile(target, options.get("fps") or info.fps or 25.0, info.live, constant="fps" in options)


class VideoFile(Sink):
    needs_image = True

    def __init__(self, path: Path, fps: float, live: bool, constant: bool = False):
        super().__init__()
        self.path = path
        self._fps = fps
        self._live = live
        self._constant = constant
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
        self._open_encoder = encoder_for(path)
        self._encoder: Encoder | None = None
        self._size = (0, 0)
        self._written = 0
        self._started = 0.0
        check_writable(self._temporary)

    def write(self, result: Result, image: Image | None) -> None:
        assert image is not None
        if self._encoder is None:
            self._size = (image.shape[1], image.shape[0])
            self._started = self._time_of(result.frame)
            self._encoder = self._open_encoder(self._temporary, *self._size, self._fps)
        if self._written % SPACE_EVERY == 0:
            require_space(self.path.parent)
        width, height = self._size
        if image.shape[:2] != (height, width):
            self._note_resize()
            image = resize(image, height, width)
        self._encoder.write(image, self._time_of(result.frame) - self._started)
        self._written += 1

    def _time_of(self, frame: Frame) -> float:
        """Seconds on the axis that the video keeps; only the first frame says where it starts."""
        if self._live:
            return frame.captured
        if frame.pts is None or self._constant:
            return self._written / self._fps
        return frame.pts

    def _note_resize(self) -> None:
        text = f"{self.path}: the frame size changed; frames are stretched to {self._size[0]}x{self._size[1]}."
        if text not in self.warnings:
            self.warnings.append(text)

    def close(self) -> None:
        encoder, self._encoder = self._encoder, None
        if encoder is None:
            self._temporary.unlink(missing_ok=True)
            return
        try:
            encoder.close()
            # A full disk is not always reported, so look at what there is.
            if not cv2.VideoCapture(str(self._temporary.absolute())).isOpened():
                raise StreamError(f"Video {self.path} could not be finished.", "The disk may be full.")
        except StreamError:
            self._temporary.unlink(missing_ok=True)
            raise
        self._temporary.replace(self.path)
        self.files = [self.path]
        if encoder.left_out and not self._live:
            self.warnings.append(
                f"{self.path}: frames left out: {encoder.left_out}. At a constant {self._fps:g} frames per second "
                "their time was taken. FILE.mp4 with 'edgeseg[camera]' keeps frames and times, ?fps= keeps the frames."
            )
