"""Cameras of Video4Linux: `/dev/video0`, with `?size=1280x720&fps=30&format=MJPG`."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import cv2

from edgeseg.errors import FileError, OptionError, StreamError
from edgeseg.result import Frame
from edgeseg.stream.sources import Source
from edgeseg.stream.uri import Convert, Uri, number, size

FORMS = "/dev/video0"
CAMERA = True
OPTIONS: dict[str, Convert] = {"size": size, "fps": number(0.1, 1000), "format": str}


def claims(uri: Uri) -> bool:
    return not uri.scheme and uri.path.startswith("/dev/")


def open(uri: Uri) -> Source:
    device, options = uri.split(OPTIONS)
    path = Path(device)
    if path.exists() and not (stat.S_ISCHR(path.stat().st_mode) and path.name.startswith("video")):
        raise FileError(f"{device} is not a camera.", "Expected a Video4Linux device such as /dev/video0.")
    return Camera(path, **options)


class Camera(Source):
    live = True

    def __init__(
        self, device: Path, size: tuple[int, int] | None = None, fps: float | None = None, format: str | None = None
    ):
        super().__init__()
        if format and len(format) != 4:
            raise OptionError(f"Option format={format!r} of {device} is not usable.", "Expected 4 letters: MJPG.")
        self.device = device
        self.fps = fps
        self._size = size
        self._format = format
        self._index = 0
        self._capture: cv2.VideoCapture | None = None

    def _connect(self) -> cv2.VideoCapture:
        if not self.device.exists():
            raise FileError(
                f"Camera {self.device} does not exist.", "Plug it in; `ls /dev/video*` shows what is there."
            )
        if not os.access(self.device, os.R_OK | os.W_OK):
            raise FileError(f"Camera {self.device} may not be read by this user.", "Add the user to the group `video`.")
        capture = cv2.VideoCapture(str(self.device), cv2.CAP_V4L2)
        if not capture.isOpened():
            raise StreamError(
                f"Camera {self.device} cannot be opened.", "Another program may hold it; find it with `fuser -v`."
            )
        if self._format:
            self._set(capture, cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*self._format), f"format {self._format}")
        if self._size:
            self._set(capture, cv2.CAP_PROP_FRAME_WIDTH, self._size[0], f"width {self._size[0]}")
            self._set(capture, cv2.CAP_PROP_FRAME_HEIGHT, self._size[1], f"height {self._size[1]}")
        if self.fps:
            self._set(capture, cv2.CAP_PROP_FPS, self.fps, f"{self.fps:g} frames per second")
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture

    def _set(self, capture: cv2.VideoCapture, key: int, value: float, what: str) -> None:
        capture.set(key, value)
        if abs(capture.get(key) - value) > 0.5:
            capture.release()
            raise OptionError(
                f"Camera {self.device} does not offer {what}.", "Choose one that `v4l2-ctl --list-formats-ext` lists."
            )

    def read(self, timeout: float) -> Frame | None:
        if self._capture is None:
            self._capture = self._connect()
        ok, image = self._capture.read()
        if not ok:
            raise StreamError(f"Camera {self.device} delivers no more frames.", "It was unplugged or has failed.")
        self._index += 1
        return Frame(image, self._index - 1, time.monotonic(), age_from="arrival")  # type: ignore[arg-type]

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
