"""JSON lines: `log.jsonl` gets one line per frame, added at the end: number, time, share of each class, milliseconds.

`?rotate_mb=100` starts over when the file is that large and keeps one older file, `log.jsonl.1`.
"""

from __future__ import annotations

import json
from pathlib import Path

from edgeseg.errors import StreamError
from edgeseg.images import Image
from edgeseg.segmenter import Result
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
        self._limit = rotate_mb * 1e6 if rotate_mb else float("inf")
        check_writable(path)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, result: Result, image: Image | None) -> None:
        try:
            if self._file.tell() > self._limit:
                self._file.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._file = self._path.open("a", encoding="utf-8", buffering=1)
            self.files = [self._path]
            self._file.write(json.dumps(ResultRecord.of(result, self._info).to_dict()) + "\n")
        except OSError as error:
            raise StreamError(f"Cannot write {self._path}: {error.strerror}.", "Free some space.") from error

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:  # what was still in the buffer does not fit
            raise StreamError(f"Cannot write {self._path}: {error.strerror}.", "Free some space.") from error
