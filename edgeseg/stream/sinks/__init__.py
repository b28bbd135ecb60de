"""Sinks: where results go. One module each, found by its file name, chosen by the URI.

A sink module has
    FORMS: str                      how its URIs look, for messages and help
    claims(uri) -> bool             whether this URI is its own
    open(uri, info) -> Sink         raises OptionError or FileError before anything runs: it checks that it can write
    SHARED = True                   only where several streams may open the same URI
    IS_PATH = True                  only where a path stands behind its scheme
    MARGIN_EVERY: int               only where it uses Result.margin: it is measured of every n-th frame
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from edgeseg import plugins
from edgeseg.errors import FileError, OptionError, StreamError, did_you_mean
from edgeseg.images import Image
from edgeseg.result import Result
from edgeseg.results.drift import DriftState
from edgeseg.spec import Spec
from edgeseg.stream.events.rules import Rules
from edgeseg.stream.events.watch import Event, Observation
from edgeseg.stream.uri import Uri

SPARE_BYTES = 4 << 20


@dataclass(frozen=True)
class Info:
    """What a sink may know about the stream it belongs to.

    `fps` is None where nobody knows; `part` counts how often the sink was opened again after it failed; `rules` are
    those of this stream; `review`: results may be undecided; `margin_every`: of how many results one has its margin, 0
    if nobody says. `reference`: the content of the bundle's reference.json, None where it has none; `golden()` decodes
    its first golden frame.
    """

    spec: Spec
    fps: float | None = None
    live: bool = False
    name: str = ""
    part: int = 0
    rules: Rules | None = None
    review: bool = False
    margin_every: int = 0
    reference: bytes | None = field(default=None, repr=False)
    golden: Callable[[], Image | None] = field(default=lambda: None, repr=False, compare=False)


class Sink(ABC):
    """A context manager that takes results in order.

    `needs_image`: write() gets the frame with its overlay, too. `needs_frame`: it looks at the frame itself.
    `needs_detail`: results give their class map at the frame's own size. `needs_events`: observe() is called before
    each write(), and conclude() before close(). `files` are the files and folders that it has written.
    """

    needs_image = False
    needs_frame = False
    needs_detail = False
    needs_events = False
    name = ""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.files: list[Path] = []

    @property
    def lost(self) -> int:
        """How many results it could not keep, at this moment; never falls."""
        return 0

    def drift(self) -> DriftState | None:
        """For a sink that watches for drift: how the stream stands. May be called by any thread."""
        return None

    def queued(self) -> Mapping[str, int]:
        """For a sink that keeps undecided results for review: what became of them. May be called by any thread."""
        return {}

    @abstractmethod
    def write(self, result: Result, image: Image | None) -> None:
        """Take one result; `image` ([H, W, 3] BGR) comes only where it is needed.

        Raises StreamError or FileError when it cannot be kept.
        """

    def observe(self, observation: Observation) -> None:  # noqa: B027 -- most sinks take results alone
        """Take what the rules say of the result that write() gets next."""

    def conclude(self, events: tuple[Event, ...]) -> None:  # noqa: B027 -- most sinks take results alone
        """Take the ends of the events that the end of the run cuts off."""

    def close(self) -> None:  # noqa: B027 -- some sinks hold nothing
        """Finish what was written. Safe to call twice."""

    def rescue(self) -> None:  # noqa: B027 -- most sinks keep everything at once
        """Keep what was written: the process is about to end. Called by another thread, perhaps during a write()."""

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def modules() -> list[ModuleType]:
    return [plugins.load(__name__, name) for name in plugins.names(__name__)]


def margin_every(uris: Iterable[str]) -> int:
    """Of how many frames the sinks at these URIs need one with its margin; 0: they need none."""
    wanted = [getattr(find(uri)[0], "MARGIN_EVERY", 0) for uri in uris]
    return min(filter(None, wanted), default=0)


def open(text: str, info: Info) -> Sink:
    module, uri = find(text)
    sink: Sink = module.open(uri, info)
    sink.name = str(uri)
    return sink


def find(text: str) -> tuple[ModuleType, Uri]:
    """The module that claims `text`; OptionError if none does."""
    if text.split("?")[0] == "-":
        raise OptionError(
            "Results cannot be written to standard output.",
            "Name a file, such as FILE.jsonl; --json - prints the summary.",
        )
    if not text.isascii() and text.encode(errors="replace").decode() != text:  # libraries crash on such names
        raise OptionError(f"{Uri.parse(text)} is not valid text (UTF-8).", "Choose another name to write to.")
    uri = Uri.parse(text)
    found = modules()
    for module in found:
        if module.claims(uri):
            return module, uri
    forms = [form for m in found for form in m.FORMS.split(", ")]
    if not uri.scheme:
        raise OptionError(f"Cannot tell what to write to {uri}.", f"Known forms: {', '.join(sorted(forms))}.")
    schemes = [form.split("://")[0] for form in forms if "://" in form]
    raise OptionError(f"Unknown kind of sink {uri.scheme + '://'!r}.", did_you_mean(uri.scheme, schemes))


def require_rules(uri: Uri, info: Info) -> Rules:
    """The rules of the stream; OptionError where it has none."""
    if info.rules is None or not info.rules.rules:
        stream = f" for the stream {info.name!r}" if info.name else ""
        raise OptionError(f"{uri} takes events, but there are no rules{stream}.", "Add --rules zones.toml.")
    return info.rules


def check_writable(path: Path) -> None:
    """FileError unless a file can be made at `path` (which stays, empty); its folder is made if needed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    except OSError as error:
        raise FileError(f"Cannot write {path.parent}: {error.strerror}.", "Choose a folder you may write.") from error
    require_space(path.parent)


def require_space(folder: Path) -> None:
    """StreamError unless there is room to finish a file properly, and where the folder is gone."""
    try:
        stat = os.statvfs(folder)
    except OSError as error:
        raise StreamError(f"Cannot write {folder}: {error.strerror}.", "Was it removed or unmounted?") from error
    if stat.f_bavail * stat.f_frsize < SPARE_BYTES:
        raise StreamError(f"The disk of {folder} is full.", "Free some space; what was written so far is kept.")
