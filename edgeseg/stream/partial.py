"""PartialFile: a recording while it is written: hidden, locked, kept whatever ends its writer; it replaces no file."""

from __future__ import annotations

import errno
import fcntl
import itertools
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2

from edgeseg.errors import FileError

log = logging.getLogger(__name__)
SYNC_SECONDS = 1.0
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # some network file systems


class PartialFile:
    """`.out.part.mp4` beside `out.mp4`, until keep() gives it a name of its own.

    The lock on it ends with the process that holds it, however that ends. So a locked one belongs to a run that goes
    on, which is an error; an unlocked one was left by a dead process: if it plays, it is kept as `name_of(path)`. What
    is written goes to the disk every second, so that a power cut costs no more.
    """

    def __init__(self, path: Path, name_of: Callable[[Path], Path] | None = None):
        self.path = path.with_name(f".{path.stem}.part{path.suffix}")
        self._name_of = name_of or (lambda _: path)
        self._done = threading.Event()
        self._keeping = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path, path)
            if os.fstat(self._lock).st_size:
                self._keep_leftover()
                self._lock = _locked(self.path, path)
        except OSError as error:
            raise FileError(
                f"Cannot write {path.parent}: {error.strerror}.", "Choose a folder you may write."
            ) from error
        threading.Thread(target=self._sync, name="edgeseg-sync", daemon=True).start()

    def _keep_leftover(self) -> None:
        if plays(self.path):
            target = claim(self._name_of(self.path))
            self.path.replace(target)
            log.warning("%s was left unfinished by a run that was killed; it is kept.", target)
        else:
            self.path.unlink(missing_ok=True)
            log.warning("Removed %s, left by a run that was killed: nothing in it plays.", self.path)
        os.close(self._lock)

    def keep(self, path: Path, overwrite: bool = False) -> Path | None:
        """Give it the name `path`, or `path-2`, `path-3`, ... where that exists and is not to be overwritten.

        None if it has a name already or was removed: a signal and the thread that writes may both want to finish it.
        OSError where it cannot be renamed.
        """
        with self._keeping:
            if self._done.is_set():
                return None
            target = path if overwrite else claim(path)
            with suppress(OSError):  # not every file system can; what is written is readable all the same
                os.fsync(self._lock)
            try:
                self.path.replace(target)
            except OSError:
                if not overwrite:
                    target.unlink(missing_ok=True)
                raise
            self._release()
            _sync_folder(target.parent)
            return target

    def discard(self) -> None:
        with self._keeping:
            if not self._done.is_set():
                with suppress(OSError):
                    self.path.unlink(missing_ok=True)
                self._release()

    def leave(self) -> None:
        """Let go of it under its hidden name: the next run finds it."""
        with self._keeping:
            if not self._done.is_set():
                self._release()

    def _release(self) -> None:
        self._done.set()
        os.close(self._lock)

    def _sync(self) -> None:
        while not self._done.wait(SYNC_SECONDS):
            with suppress(OSError):
                os.fdatasync(self._lock)


def claim(path: Path) -> Path:
    """The first of `path`, `path-2`, `path-3`, ... that was free, as an empty file that is now ours to replace."""
    for candidate in _numbered(path):
        with suppress(FileExistsError):
            os.close(os.open(candidate, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            return candidate
    raise AssertionError("numbers do not end")


def free_name(path: Path) -> Path:
    """The name that claim() would give now."""
    return next(candidate for candidate in _numbered(path) if not os.path.lexists(candidate))


def plays(path: Path) -> bool:
    """Whether at least one frame of a video can be read."""
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    try:
        return capture.isOpened() and capture.read()[0]
    finally:
        capture.release()


def _numbered(path: Path) -> itertools.chain[Path]:
    return itertools.chain([path], (path.with_stem(f"{path.stem}-{n}") for n in itertools.count(2)))


def _locked(path: Path, wanted: Path) -> int:
    """An open descriptor of `path`, locked; FileError if another process has it."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            hint = "Give this one another name, or stop that one."
            raise FileError(f"Another run is writing {wanted}.", hint) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)  # its last owner renamed it between our two calls


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
