"""`null://` takes everything and keeps nothing: for timing. `?picture=1` has the overlay drawn first."""

from __future__ import annotations

from edgeseg.images import Image
from edgeseg.segmenter import Result
from edgeseg.stream.sinks import Info, Sink
from edgeseg.stream.uri import Uri, flag

FORMS = "null://"
SHARED = True


def claims(uri: Uri) -> bool:
    return uri.scheme == "null"


def open(uri: Uri, info: Info) -> Sink:
    _, options = uri.split({"picture": flag})
    return Null(**options)


class Null(Sink):
    def __init__(self, picture: bool = False):
        super().__init__()
        self.wants_picture = picture

    def write(self, result: Result, picture: Image | None) -> None:
        pass
