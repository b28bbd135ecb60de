"""Sources: where frames come from. One module each, found by its file name, chosen by the URI.

A source module has
    FORMS: str                      how its URIs look, for messages and help
    claims(uri) -> bool             whether this URI is its own
    open(uri) -> Source             raises OptionError or FileError before any frame is read
    CAMERA = True                   only for cameras: they come and go, so open() checks the options and the first
                                    read() connects; supervise.SupervisedSource reconnects them
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path
from types import ModuleType

from edgeseg import plugins
from edgeseg.errors import OptionError, StreamError, did_you_mean
from edgeseg.result import Frame
from edgeseg.stream.uri import Uri

MAX_MEGAPIXELS = 40.0


class EndOfStream(Exception):
    """The source is at its clean end."""


class Source(ABC):
    """Frames, one after another. `count` and `fps` are None where nobody knows; `warnings` go into the summary.

    `dropped` counts frames that were replaced by newer ones inside the source, `damaged` packets that did not decode,
    `reconnects` connections after the first. `state` is one of supervise.STATES, "" where it is not supervised.
    `waiting`: data arrives, but no image can be made of it before a key frame comes. `interval`: seconds from one image
    to the next where the source itself asks for them (snapshots), else 0.
    """

    name = ""
    live = False
    count: int | None = None
    fps: float | None = None
    state = ""
    dropped = 0
    damaged = 0
    reconnects = 0
    waiting = False
    interval = 0.0

    def __init__(self) -> None:
        self.warnings: list[str] = []

    @abstractmethod
    def read(self, timeout: float) -> Frame | None:
        """The next frame; None if none comes within `timeout` seconds. Raises EndOfStream, or StreamError if broken.

        A source whose driver can only block may take as long as its own time-out; SupervisedSource copes with that.
        """

    def use_motion(self) -> None:  # noqa: B027 -- most sources know of none
        """Give frames the motion that the decoder knows of (Frame.motion); to be called before the first read()."""

    def close(self) -> None:  # noqa: B027 -- most sources hold nothing
        """Release what the source holds. Safe to call twice."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Refused(StreamError):
    """The camera refuses (wrong credentials): trying again soon would not help."""


def modules() -> list[ModuleType]:
    return [plugins.load(__name__, name) for name in plugins.names(__name__)]


def full(text: str) -> str:
    """The URI of a source in full: `0` and `webcam` mean /dev/video0, as in other programs."""
    short = re.fullmatch(r"(?:(\d{1,2})|webcam)(\?.*)?", text)
    return text if not short or Path(text).exists() else f"/dev/video{int(short[1] or 0)}{short[2] or ''}"


def find(text: str) -> tuple[ModuleType, Uri]:
    """The module that claims `text`; OptionError if none does."""
    text = full(text)
    uri = Uri.parse(text)
    found = modules()
    for module in found:
        if module.claims(uri):
            return module, uri
    schemes = [form.split("://")[0] for m in found for form in m.FORMS.split(", ") if "://" in form]
    raise OptionError(f"Unknown kind of source {uri.scheme + '://'!r}.", did_you_mean(uri.scheme, schemes))


def is_camera(text: str) -> bool:
    return getattr(find(text)[0], "CAMERA", False)


def open(text: str) -> Source:
    module, uri = find(text)
    source: Source = module.open(uri)
    source.name = str(uri)
    return source


def check_size(width: int, height: int, what: object, limit: float = MAX_MEGAPIXELS) -> None:
    """StreamError for an image of more than `limit` megapixels: a hostile header must not take all the memory."""
    if width * height > limit * 1e6:
        raise StreamError(
            f"{what} is {width}x{height}, over the limit of {limit:g} megapixels.",
            "If that size is meant, raise the limit with the option max_megapixels=N.",
        )
