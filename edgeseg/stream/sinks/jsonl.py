"""JSON lines: `log.jsonl` gets one line per frame, added at the end: number, time, share of each class, milliseconds.

`?rotate_mb=100` starts over when the file is that large and keeps one older file, `log.jsonl.1`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cv2

from edgeseg.data.images import Image
from edgeseg.errors import StreamError
from edgeseg.segmenter import Result
from edgeseg.spec import Spec
from edgeseg.stream.sinks import Info, Sink, prove_writable
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
        prove_writable(path)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, result: Result, picture: Image | None) -> None:
        try:
            if self._file.tell() > self._limit:
                self._file.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._file = self._path.open("a", encoding="utf-8", buffering=1)
            self._file.write(json.dumps(record(result, self._info)) + "\n")
        except OSError as error:
            raise StreamError(f"Cannot write {self._path}: {error.strerror}.", "Free some space.") from error

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:  # what was still in the buffer does not fit
            raise StreamError(f"Cannot write {self._path}: {error.strerror}.", "Free some space.") from error


def record(result: Result, info: Info) -> dict[str, Any]:
    """One result as plain values. `time`: Unix seconds of the capture; `shares` of the picture, of classes present."""
    age = time.monotonic() - result.frame.captured
    return {
        "stream": info.name,
        "frame": result.frame.index,
        "time": round(time.time() - age, 3),
        "age_ms": round(age * 1e3, 1),
        "size": [result.frame.image.shape[1], result.frame.image.shape[0]],
        "shares": shares(result.classmap, info.spec),
        "ms": {stage: round(seconds * 1e3, 2) for stage, seconds in result.times.items()},
    }


def shares(classmap: Image, spec: Spec) -> dict[str, float]:
    counts = cv2.calcHist([classmap], [0], None, [256], [0, 256]).reshape(-1)  # OpenCV 4 gives a column
    return {name: round(float(counts[i]) / classmap.size, 4) for i, name in enumerate(spec.classes) if counts[i]}
