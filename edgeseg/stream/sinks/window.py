"""`window://` shows the overlay on the screen; closing the window or pressing q ends the run."""

from __future__ import annotations

import cv2

from edgeseg.errors import OptionError, StreamError
from edgeseg.images import Image
from edgeseg.result import Result
from edgeseg.stream.sinks import Info, Sink
from edgeseg.stream.uri import Uri

FORMS = "window://"


def claims(uri: Uri) -> bool:
    return uri.scheme == "window"


def open(uri: Uri, info: Info) -> Sink:
    uri.split({})
    return Window(f"edgeseg {info.name}".strip())


class Window(Sink):
    needs_image = True

    def __init__(self, title: str):
        super().__init__()
        self._title = title
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise OptionError(
                "window:// needs a screen and an OpenCV with windows; this one is headless.",
                "Write FILE.mp4 instead, or install opencv-python in place of opencv-python-headless.",
            ) from error

    def write(self, result: Result, image: Image | None) -> None:
        assert image is not None
        cv2.imshow(self._title, image)
        if cv2.waitKey(1) & 0xFF == ord("q") or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
            raise StreamError("The window was closed.")

    def close(self) -> None:
        try:
            cv2.destroyWindow(self._title)
        except cv2.error:  # already closed by the user
            return
