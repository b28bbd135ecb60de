"""Reading and writing files: checked before, atomic after."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeseg.errors import FileError


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


def write_bytes(path: Path, data: bytes) -> None:
    """Write atomically; FileError where the folder cannot be written."""
    temporary = path.absolute().with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise FileError(f"Cannot write {path}: {error.strerror or error}.", "Choose a folder you may write.") from error


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        total = hashlib.sha256()
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


@contextmanager
def replacing(path: Path, marker: str) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its name at the end; nothing is left if the block fails.

    An existing `path` is replaced only if it holds `marker` (edgeseg wrote it) or is empty.
    """
    path = path.resolve()  # "." has no name to put beside
    work = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.exists() and not (path.is_dir() and ((path / marker).exists() or not any(path.iterdir()))):
            raise FileError(f"{path} exists and holds something else.", "Choose another output folder, or remove it.")
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed; in containers ids repeat
        work.mkdir(parents=True)
    except OSError as error:
        raise FileError(f"Cannot write {path}: {error.strerror}.", "Choose a folder you may write.") from error
    try:
        yield work
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        if path.exists():
            path.rename(old)
        work.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
