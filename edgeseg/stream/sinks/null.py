"""`null://` takes everything and keeps nothing: for timing. `?overlay=1` has the overlay drawn first."""

from __future__ import annotations

from edgeseg.images import Image
from edgeseg.result import Result
from edgeseg.stream.sinks import Info, Sink
from edgeseg.stream.uri import Uri, flag

FORMS = "null://"
SHARED = True


def claims(uri: Uri) -> bool:
    return uri.scheme == "null"


def open(uri: Uri, info: Info) -> Sink:
    _, options = uri.split({"overlay": flag})
    return Null(**options)


class Null(Sink):
    def __init__(self, overlay: bool = False):
        super().__init__()
        self.needs_image = overlay

    def write(self, result: Result, image: Image | None) -> None:
        pass
