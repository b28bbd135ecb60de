"""JSON lines: `log.jsonl` gets one line per frame, added at the end: number, time, share of each class, milliseconds.

`?rotate_mb=100` starts over when the file is that large and keeps one older file, `log.jsonl.1`. A file that was moved
or removed (logrotate) is begun anew. A named pipe works while somebody reads it.
"""

from __future__ import annotations

import errno
import json
import os
from io import TextIOWrapper
from pathlib import Path

from edgeseg.errors import StreamError
from edgeseg.images import Image
from edgeseg.result import Result
from edgeseg.stream.record import ResultRecord
from edgeseg.stream.sinks import Info, Sink, check_writable
from edgeseg.stream.uri import Uri, number

FORMS = "FILE.jsonl"
SHARED = True


def claims(uri: Uri) -> bool:
    return not uri.scheme and Path(uri.path).suffix.lower() == ".jsonl"


def open(uri: Uri, info: Info) -> Sink:
    path, options = uri.split({"rotate_mb": number(0.001, 1e6)})
    return JsonLines(Path(path), info, **options)


class JsonLines(Sink):
    def __init__(self, path: Path, info: Info, rotate_mb: float | None = None):
        super().__init__()
        self._path = path
        self._info = info
        self._plain = not path.exists() or path.is_file()
        self._limit = rotate_mb * 1e6 if rotate_mb and self._plain else float("inf")
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

    def write(self, result: Result, image: Image | None) -> None:
        line = json.dumps(ResultRecord.of(result, self._info).to_dict()) + "\n"
        try:
            if self._plain and self._is_elsewhere():
                self._file.close()
                self._file = self._open()
            if self._plain and os.fstat(self._file.fileno()).st_size > self._limit:
                self._file.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._file = self._open()
            self.files = [self._path]
            self._file.write(line)
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
