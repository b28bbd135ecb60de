"""LineFile: a file, or a pipe, that gets one line of JSON after another."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from edgeseg.errors import StreamError
from edgeseg.stream.sinks import check_writable


class LineFile:
    """Lines are added at the end. With `rotate_mb` it starts over when it is that large; `NAME.1` is the file before.

    A file that was moved or removed (logrotate) is begun anew. StreamError or FileError where it cannot be written.
    `durable`: each line is on the disk when write() returns.
    """

    def __init__(self, path: Path, rotate_mb: float | None = None, durable: bool = False):
        self._path = path
        self._plain = not path.exists() or path.is_file()
        self._limit = rotate_mb * 1e6 if rotate_mb and self._plain else float("inf")
        self._durable = durable and self._plain
        if self._plain:
            check_writable(path)
        try:
            self._file = self._open()
        except OSError as error:
            raise self._explain(error) from error

    def _open(self) -> TextIOWrapper:
        # Opening a pipe must not wait for its reader: no signal would end that.
        descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK, 0o644)
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "w", encoding="utf-8", buffering=1)

    def write(self, values: Mapping[str, Any]) -> None:
        line = json.dumps(values) + "\n"
        try:
            if self._plain and self._is_elsewhere():
                self._file.close()
                self._file = self._open()
            if self._plain and os.fstat(self._file.fileno()).st_size > self._limit:
                self._file.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._file = self._open()
            self._file.write(line)
            if self._durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise self._explain(error) from error

    def _is_elsewhere(self) -> bool:
        try:
            return not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return True

    def _explain(self, error: OSError) -> StreamError:
        hints = {
            errno.ENXIO: "Nobody reads this pipe: start its reader first.",
            errno.EPIPE: "Whoever read this pipe is gone.",
            errno.ENOENT: "Was its folder removed?",
        }
        hint = hints.get(error.errno or 0, "Free some space.")
        return StreamError(f"Cannot write {self._path}: {error.strerror}.", hint)

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:  # what was still in the buffer does not fit
            raise self._explain(error) from error
