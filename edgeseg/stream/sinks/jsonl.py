"""JSON lines: `log.jsonl` gets one line per frame, added at the end: number, time, share of each class, milliseconds.

`?rotate_mb=100` starts over when the file is that large and keeps one older file, `log.jsonl.1`. A file that was moved
or removed (logrotate) is begun anew. A named pipe works while somebody reads it.
"""

from __future__ import annotations

from pathlib import Path

from edgeseg.images import Image
from edgeseg.result import Result
from edgeseg.stream.line_file import LineFile
from edgeseg.stream.record import ResultRecord
from edgeseg.stream.sinks import Info, Sink
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
        self._lines = LineFile(path, rotate_mb)

    def write(self, result: Result, image: Image | None) -> None:
        self.files = [self._path]
        self._lines.write(ResultRecord.of(result, self._info).to_dict())

    def close(self) -> None:
        self._lines.close()
