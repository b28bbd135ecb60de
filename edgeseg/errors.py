"""Every error a user can meet.

    EdgesegError            what happened, and a hint: what was expected, what to try
    ├── OptionError         a name, key or value that is not one of the allowed ones
    ├── FileError           a file or folder that is missing, broken or cannot be written
    ├── MissingPackage      an optional package this job needs is not installed
    ├── BundleError         a bundle that is incomplete, altered or made for something else
    └── StreamError         a source or sink that failed while running

The command line prints `what` and `hint` and exits with `exit_code`; tracebacks only with --debug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NO_MEMORY = ("bad_alloc", "insufficient memory", "failed to allocate", "can't allocate memory", "not enough memory")


class EdgesegError(Exception):
    """An error with `what` happened and a `hint` that says what to try."""

    exit_code = 2

    def __init__(self, what: str, hint: str = ""):
        super().__init__(f"{what}\n{hint}" if hint else what)
        self.what = what
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """How it travels between processes: subclasses are made from other arguments."""
        return _rebuilt, (type(self), self.what, self.hint)


class OptionError(EdgesegError):
    pass


class FileError(EdgesegError):
    pass


class MissingPackage(EdgesegError):
    def __init__(self, package: str, job: str, extra: str):
        super().__init__(
            f"{job} needs the package {package}, which is not installed.",
            f"Install it with: pip install 'edgeseg[{extra}]'",
        )


class BundleError(EdgesegError):
    pass


class StreamError(EdgesegError):
    pass


def _rebuilt(kind: type[EdgesegError], what: str, hint: str) -> EdgesegError:
    error = kind.__new__(kind)
    EdgesegError.__init__(error, what, hint)
    return error


def first_line(error: Exception) -> str:
    """The first line of a library's message, up to 200 characters (the others may hold a whole graph), or its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def failed_frame(runtime: str, error: Exception) -> EdgesegError:
    """What to tell of a runtime that fails while it runs a model that it could load."""
    return EdgesegError(
        f"{runtime} failed at a frame: {first_line(error)}.",
        "The model is not sound, or memory is used up: try edgeseg verify BUNDLE, or compile it again.",
    )


def out_of_memory(error: Exception) -> EdgesegError | None:
    """What to tell of an error that says that memory is used up, in Python or a library; None for any other."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY):
        return EdgesegError(f"There is not enough memory: {first_line(error)}.", "Use smaller images or a smaller net.")
    return None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """A hint that names the closest choice first, then all of them."""
    known = sorted(choices)
    lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(word).lower(), lower, n=1, cutoff=0.5)
    start = f"Did you mean {lower[close[0]]!r}? " if close else ""
    return f"{start}Known: {', '.join(known)}."


def unknown(kind: str, word: str, choices: Iterable[str]) -> OptionError:
    return OptionError(f"Unknown {kind} {word!r}.", did_you_mean(word, choices))
