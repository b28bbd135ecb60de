"""A folder that is read through one handle: a link to it that is turned meanwhile changes nothing, and no link inside
it is followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from edgeseg.errors import FileError


class LinkError(OSError):
    """A name that leads out of the folder, or through a link."""


class Directory:
    """The names and contents of an open folder. `handle`: its file descriptor."""

    def __init__(self, handle: int):
        self._handle = handle

    def read(self, name: str, most: int) -> bytes:
        """The content of the file `name`, of `most` bytes at most; its beginning where it is larger.

        LinkError for a name that leads outside, OSError for one that is no file, ValueError for one that no file can
        have.
        """
        with self._open(name) as handle, os.fdopen(os.dup(handle), "rb") as file:
            return file.read(min(most, os.fstat(handle).st_size))

    def names(self) -> Iterator[str]:
        """Everything inside that is not a folder, links to folders included, relative to this one."""
        for root, folders, files, handle in os.fwalk(".", dir_fd=self._handle, follow_symlinks=False):
            links = [name for name in folders if _is_link(name, handle)]
            yield from (PurePosixPath(root, name).as_posix() for name in (*files, *links))

    @contextmanager
    def _open(self, name: str) -> Iterator[int]:
        """A descriptor of a regular file, every folder on the way entered without following a link."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise LinkError(f"{name} leads outside")
        *folders, last = path.parts or (".",)
        handles = [self._handle]
        try:
            for part in folders:
                handles.append(_enter(part, os.O_DIRECTORY, handles[-1]))
            handles.append(_enter(last, os.O_NONBLOCK, handles[-1]))  # a FIFO must not make us wait
            if not stat.S_ISREG(os.fstat(handles[-1]).st_mode):
                raise FileNotFoundError(f"{name} is not a file")
            yield handles[-1]
        finally:
            for handle in handles[1:]:
                os.close(handle)


def _enter(name: str, flags: int, inside: int) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=inside)
    except OSError as error:
        if _is_link(name, inside):
            raise LinkError(f"{name} is a link") from error
        raise


def _is_link(name: str, inside: int) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(name, dir_fd=inside).st_mode)
    except OSError:
        return False


@contextmanager
def opened(path: Path, what: str) -> Iterator[Directory]:
    """The folder `path`, which may itself be a link; FileError where it cannot be entered."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"{what} {str(path)[:200]} is not a folder that can be read: {reason}.", "Check it.") from None
    try:
        yield Directory(handle)
    finally:
        os.close(handle)
