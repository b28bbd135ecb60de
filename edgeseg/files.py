"""Reading and writing files: checked before, atomic after."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeseg.errors import EdgesegError, FileError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Faults of disks, paths and limits.
ENVIRONMENT = (
    *NO_SPACE, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR,
    errno.EISDIR, errno.EMFILE, errno.ENFILE, errno.ENOENT, errno.EEXIST, errno.ESTALE, errno.ENXIO, errno.EPIPE,
)  # fmt: skip
STREAM_ERROR = "iostream error"  # all that the libraries in C++ say of a write that failed
FREE_SPACE = "Free some space on that disk, or choose another."


def require_file(path: Path, what: str) -> Path:
    """`path` if it is a non-empty file; FileError otherwise."""
    try:
        is_file = path.is_file()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise FileError(f"{what} {str(path)[:200]} cannot be read: {error.strerror}.", "Check the path.") from None
    if not is_file:
        state = "is a folder" if path.is_dir() else "does not exist"
        raise FileError(f"{what} {path} {state}.", "Check the path.")
    if path.stat().st_size == 0:
        raise FileError(f"{what} {path} is empty (0 bytes).", "Write or copy it again.")
    return path


def write_bytes(path: Path, data: bytes, durable: bool = True) -> None:
    """Write atomically; FileError where that cannot be done.

    `durable`: a power cut leaves the old content or the new one. Without, it takes less time, and may leave neither.
    """
    temporary = path.absolute().with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            sync_folder(path.absolute().parent)
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):
            temporary.unlink()
        raise cannot_write(path, error) from error


def describe(error: OSError) -> FileError | None:
    """What to tell of an error of the operating system that no code of ours is to blame for, else None."""
    if error.errno not in ENVIRONMENT:
        return None
    hint = FREE_SPACE if error.errno in NO_SPACE else "Check the path, its permissions and its disk."
    if error.filename is None:
        return FileError(f"Reading or writing failed: {error.strerror}.", hint)
    return FileError(f"{str(error.filename)[:200]} cannot be used: {error.strerror}.", hint)


def cannot_write(path: Path | str, error: Exception) -> FileError:
    """The error of a failed write, with what to do about its reason."""
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error)
    hint = FREE_SPACE if number in NO_SPACE else "Choose a folder you may write."
    return FileError(f"Cannot write {str(path)[:200]}: {reason}.", hint)


@contextmanager
def alone(path: Path, busy: EdgesegError) -> Iterator[None]:
    """One process at a time: `busy` is raised while another holds `path`. What a process that died held is free."""
    try:
        file = path.open("w")
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise busy from None
        yield


def sync_folder(folder: Path) -> None:
    """Have the names in `folder` on the disk; file systems that cannot do that are left alone."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        total = hashlib.sha256()
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


@contextmanager
def replacing(path: Path, marker: str, durable: bool = True) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its name at the end; nothing is left if the block fails.

    An existing `path` is replaced only if it holds `marker` (edgeseg wrote it) or is empty. `durable`: see write_bytes.
    FileError for anything else there, and where the disk is full or the folder cannot be written.
    """
    path = path.resolve()  # "." has no name to put beside
    work = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.exists() and not (path.is_dir() and ((path / marker).exists() or not any(path.iterdir()))):
            raise FileError(f"{path} exists and holds something else.", "Choose another output folder, or remove it.")
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed; in containers ids repeat
        work.mkdir(parents=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield work
        if durable:
            _sync_files(work)
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        if path.exists():
            path.rename(old)
        work.rename(path)
        sync_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if error.errno in NO_SPACE or str(error.filename).startswith(str(work)):
            raise cannot_write(path, error) from error
        raise
    except RuntimeError as error:
        if STREAM_ERROR in str(error):
            raise FileError(f"Cannot write {path}: {STREAM_ERROR}.", FREE_SPACE) from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _sync_files(folder: Path) -> None:
    for file in folder.rglob("*"):
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
