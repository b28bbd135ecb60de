"""History: every frame that a bundle was scored on, one JSON line each, from which all figures are made anew.

The first line says which bundle and classes it is about. A frame is known by the content of its image; a later line of
the same image, whose labels were corrected, takes the place of an earlier one. Lines are added as frames are scored, so
that a run that is cut off goes on where it was.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.files import cannot_write, require_file
from edgeseg.records import Record, parse_json
from edgeseg.results.accuracy import ScoredFrame

ANOTHER = "Keep a history for each bundle: --history OTHER.jsonl."
MOST_PIXELS = 1 << 40
LATEST = 2.5e11  # Unix seconds that a calendar has a day for
DAMAGED = "Restore it, or begin a new one: --history OTHER.jsonl."


@dataclass(frozen=True, kw_only=True)
class HistoryHead(Record):
    """The first line. `digest`: of the bundle."""

    KIND = "accuracy-history"
    HINT = DAMAGED

    bundle: str
    digest: str
    classes: tuple[str, ...]


class History:
    """`path`: the file, which is made with the first frame; None keeps nothing. OptionError where it is about another
    bundle or other classes, FileError where it is none of ours."""

    def __init__(self, path: Path | None, head: HistoryHead):
        self._path = path
        self._head = head
        self.frames: dict[str, ScoredFrame] = {}  # by the digest of the image
        if path is not None and path.exists():
            self._read(path)

    def scored(self, image: str, labels: str) -> bool:
        """Whether this image was scored against these labels."""
        known = self.frames.get(image)
        return known is not None and known.labels == labels

    def add(self, frame: ScoredFrame) -> None:
        """One more line, which is on the disk when this returns; FileError where it cannot be written."""
        if self._path is not None:
            self._append(self._path, frame)
        self.frames[frame.image] = frame

    def _append(self, path: Path, frame: ScoredFrame) -> None:
        lines = [frame] if path.exists() else [self._head.to_dict(), frame]
        text = "".join(json.dumps(msgspec.to_builtins(line)) + "\n" for line in lines)
        before = path.stat().st_size if path.exists() else None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):  # half a line, or half a head, is worth nothing
                os.truncate(path, before) if before else path.unlink()
            raise cannot_write(path, error) from error

    def _read(self, path: Path) -> None:
        try:
            data = require_file(path, "History").read_bytes()
        except OSError as error:
            raise FileError(f"History {path} cannot be read: {error.strerror}.", "Check its permissions.") from error
        whole = data[: data.rfind(b"\n") + 1]
        first, *lines = whole.splitlines() or [data]
        self._check(path, first)
        if len(whole) < len(data):  # a line that a power cut left unfinished
            os.truncate(path, len(whole))
        for number, line in enumerate(lines, 2):
            frame = _scored(line, f"{path}:{number}", len(self._head.classes))
            self.frames[frame.image] = frame

    def _check(self, path: Path, line: bytes) -> None:
        try:
            head = HistoryHead.from_dict(parse_json(line), path)
        except (ValueError, RecursionError):
            raise FileError(f"{path} is no history of edgeseg accuracy.", DAMAGED) from None
        except EdgesegError as error:
            raise type(error)(f"{path} is no history of edgeseg accuracy: {error.what}", DAMAGED) from None
        if head.classes != self._head.classes:
            raise OptionError(
                f"{path} is the history of a bundle with the classes {', '.join(head.classes)[:200]}; "
                f"{self._head.bundle} has {', '.join(self._head.classes)[:200]}.",
                ANOTHER,
            )
        if head.digest != self._head.digest:
            raise OptionError(
                f"{path} is the history of another bundle: {head.bundle} ({head.digest[:12]}), and this is "
                f"{self._head.bundle} ({self._head.digest[:12]}).",
                ANOTHER,
            )


def _scored(line: bytes, where: str, classes: int) -> ScoredFrame:
    try:
        frame = msgspec.convert(parse_json(line), ScoredFrame, strict=True)
        if any(not (0 <= t < classes and 0 <= p < classes) for t, p, _ in frame.confusion):
            raise ValueError("its confusion matrix is of other classes")
        if any(not 0 < pixels < MOST_PIXELS for *_, pixels in frame.confusion):
            raise ValueError("its confusion matrix holds no numbers of pixels")
        if frame.time is not None and not 0 <= frame.time < LATEST:
            raise ValueError(f"its time is {frame.time:g}")
    except (ValueError, RecursionError, OverflowError) as error:  # msgspec's error is a ValueError
        raise FileError(f"{where} is no scored frame: {error}.", DAMAGED) from None
    return frame
