"""Cameras of Video4Linux: `/dev/video0`, with `?size=1280x720&fps=30&format=MJPG`."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import cv2

from edgeseg.errors import FileError, OptionError, StreamError
from edgeseg.segmenter import Frame
from edgeseg.stream.sources import Source
from edgeseg.stream.uri import Convert, Uri, number, size

FORMS = "/dev/video0"
OPTIONS: dict[str, Convert] = {"size": size, "fps": number(0.1, 1000), "format": str}


def claims(uri: Uri) -> bool:
    return not uri.scheme and uri.path.startswith("/dev/")


def open(uri: Uri) -> Source:
    device, options = uri.split(OPTIONS)
    path = Path(device)
    if not path.exists():
        raise FileError(f"Camera {device} does not exist.", "Plug it in; `ls /dev/video*` shows what is there.")
    if not stat.S_ISCHR(path.stat().st_mode) or not path.name.startswith("video"):
        raise FileError(f"{device} is no camera.", "Expected a Video4Linux device such as /dev/video0.")
    if not os.access(path, os.R_OK | os.W_OK):
        raise FileError(f"Camera {device} may not be read by this user.", "Add the user to the group `video`.")
    return Camera(device, **options)


class Camera(Source):
    live = True

    def __init__(
        self, device: str, size: tuple[int, int] | None = None, fps: float | None = None, format: str | None = None
    ):
        super().__init__()
        self.device = device
        self._index = 0
        self._capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise StreamError(f"Camera {device} cannot be opened.", "Another program may hold it: `fuser -v` tells.")
        if format:
            if len(format) != 4:
                raise OptionError(f"Option format={format!r} of {device} is not usable.", "Expected 4 letters: MJPG.")
            self._set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*format), f"format {format}")
        if size:
            self._set(cv2.CAP_PROP_FRAME_WIDTH, size[0], f"width {size[0]}")
            self._set(cv2.CAP_PROP_FRAME_HEIGHT, size[1], f"height {size[1]}")
        if fps:
            self._set(cv2.CAP_PROP_FPS, fps, f"{fps:g} frames per second")
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or None

    def _set(self, key: int, value: float, what: str) -> None:
        self._capture.set(key, value)
        if abs(self._capture.get(key) - value) > 0.5:
            self.close()
            raise OptionError(f"Camera {self.device} does not offer {what}.", "`v4l2-ctl --list-formats-ext` tells.")

    def read(self, timeout: float) -> Frame | None:
        ok, image = self._capture.read()
        if not ok:
            raise StreamError(f"Camera {self.device} delivers no more frames.", "It was unplugged or has failed.")
        self._index += 1
        return Frame(image, self._index - 1, time.monotonic())  # type: ignore[arg-type]

    def close(self) -> None:
        self._capture.release()
