"""Ring: collected frames as a dataset within a disk budget. The least worthy make room for better ones.

DIR/train/images/NAME.jpg, DIR/train/masks/NAME.png (the model's class map, a pre-label), DIR/classes.txt, and
DIR/collected.jsonl: a line for each frame that says when it came from where, and why it was kept. An image never stands
without its mask. What was kept is worth half as much after every HALF_LIFE frames that came later, so that an old
collection does not keep new frames out; the clock plays no part in that, it may jump. Frames that were drawn at random
have RANDOM_SHARE of the disk for themselves, and the oldest of them goes first: which one stays must not depend on what
it shows.
"""

from __future__ import annotations

import errno
import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import cv2

from edgeseg.data.dataset import Classes
from edgeseg.errors import EdgesegError, FileError
from edgeseg.files import NO_SPACE, write_bytes
from edgeseg.images import palette_png
from edgeseg.monitoring.random_draw import RANDOM
from edgeseg.result import Result
from edgeseg.spec import Spec

SPLIT = "train"
IGNORE = 255
QUALITY = 95
HALF_LIFE = 200
RANDOM_SHARE = 0.1
DAY = 86400.0
SPARE = 32 << 20  # bytes that are left free on the disk


@dataclass(frozen=True)
class Kept:
    """A frame in the ring. `time`: Unix seconds when it was kept. `worth`: the sum of `why`. `bytes`: of its files.
    `number`: counts all that were ever kept here. `undecided`: why a person has to look at it, whatever else it was
    kept for."""

    name: str
    time: float
    stream: str
    frame: int
    worth: float
    bytes: int
    why: dict[str, float] = field(default_factory=dict)
    number: int = 0
    undecided: tuple[str, ...] = ()


class Ring:
    """The dataset in `folder`, which may hold what an earlier run has collected. `disk`: bytes; FileError where the
    folder cannot be written."""

    def __init__(self, folder: Path, spec: Spec, disk: int):
        self.folder = folder
        self.kept: list[Kept] = []
        self.evicted = 0
        self._spec = spec
        self._disk = disk
        self._classes = Classes(spec.classes, spec.palette, IGNORE).text().encode()
        self._check()
        self.kept = [row for row in self._read() if self._image(row.name).is_file()]
        self._number = max((row.number for row in self.kept), default=-1) + 1

    @property
    def bytes_used(self) -> int:
        return sum(row.bytes for row in self.kept)

    def begin_anew(self) -> bool:
        """Whether somebody removed the folder; what was in it is forgotten then."""
        if not self.kept or self._intact():
            return False
        self.kept.clear()
        return True

    def _intact(self) -> bool:
        return (self.folder / "classes.txt").is_file()

    def add(self, result: Result, stream: str, why: dict[str, float], time: float) -> tuple[Kept | None, list[int]]:
        """Keep a frame, unless all that is there is worth more: what was kept, and the places in `kept` of those that
        had to go, each as it was when it went. FileError where the disk is full or the folder cannot be written."""
        image, mask = self._encoded(result)
        size, worth = len(image) + len(mask), sum(why.values())
        gone: list[int] = []
        while self.kept and self.bytes_used + size > self._disk:
            place = self._least(size if RANDOM in why else 0)
            if RANDOM not in why and self._value(place) >= worth:
                break
            self._drop(place)
            gone.append(place)
        if self.bytes_used + size > self._disk:
            return None, gone
        name = self._name(time, stream, result.frame.index)
        try:
            self._write(name, image, mask)
        except FileError as error:
            if getattr(error.__cause__, "errno", None) not in NO_SPACE or not self.kept:
                raise
            place = self._least()  # another program fills the disk: give back what is worth least, then once more
            self._drop(place)
            gone.append(place)
            self._write(name, image, mask)
        reasons = result.decision.reasons if result.decision else ()
        place_of, worth = result.frame.index, round(worth, 4)
        row = Kept(name, round(time, 3), stream, place_of, worth, size, why, self._number, reasons)
        self._number += 1
        self.kept.append(row)
        self._append(row)
        return row, gone

    def _least(self, drawn: int = 0) -> int:
        """The place of the frame to go. `drawn`: bytes of a frame drawn at random that is about to come."""
        at_random = [RANDOM in row.why for row in self.kept]
        taken = drawn + sum(row.bytes for row in self.kept if RANDOM in row.why)
        pool = all(at_random) or (any(at_random) and taken > RANDOM_SHARE * self._disk)
        places = [place for place, of_pool in enumerate(at_random) if of_pool == pool]
        return min(places, key=lambda place: (self._value(place), place))

    def _value(self, place: int) -> float:
        row = self.kept[place]
        return float(row.worth * 0.5 ** ((self._number - row.number) / HALF_LIFE))

    def _encoded(self, result: Result) -> tuple[bytes, bytes]:
        image = cv2.imencode(".jpg", result.frame.image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        return image, palette_png(result.at_frame_size(), self._spec.palette)

    def _name(self, time: float, stream: str, index: int) -> str:
        try:
            stamp = datetime.fromtimestamp(time, timezone.utc).strftime("%Y%m%dT%H%M%S")
        except (OverflowError, ValueError, OSError):  # a clock that is out of its mind
            stamp = "00000000T000000"
        plain = re.sub(r"[^A-Za-z0-9_-]", "-", stream)[:60] or "frame"
        name, number = f"{stamp}-{plain}-{index:08d}", 1
        while self._image(name).exists():
            number += 1
            name = f"{stamp}-{plain}-{index:08d}-{number}"
        return name

    def _image(self, name: str) -> Path:
        return self.folder / SPLIT / "images" / f"{name}.jpg"

    def _mask(self, name: str) -> Path:
        return self.folder / SPLIT / "masks" / f"{name}.png"

    def _write(self, name: str, image: bytes, mask: bytes) -> None:
        self._check()
        try:
            write_bytes(self._mask(name), mask, durable=False)
            write_bytes(self._image(name), image, durable=False)
        except EdgesegError:
            with suppress(OSError):
                self._mask(name).unlink()
            raise

    def _drop(self, place: int) -> None:
        row = self.kept.pop(place)
        self.evicted += 1
        for path in (self._image(row.name), self._mask(row.name)):
            with suppress(OSError):
                path.unlink()

    def _check(self) -> None:
        """Have the folder and its class list, also after somebody removed them; leave some of the disk free."""
        if self.folder.exists() and not self.folder.is_dir():
            raise FileError(f"{self.folder} is a file, not a folder.", "Give the folder for frames another name.")
        listed = self.folder / "classes.txt"
        if not self._intact():
            write_bytes(listed, self._classes)
        elif not self.kept and listed.read_bytes() != self._classes:
            raise FileError(f"{self.folder} holds frames of other classes.", "Choose another folder for this bundle.")
        stat = os.statvfs(self.folder)
        if stat.f_bavail * stat.f_frsize < SPARE:
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise FileError(f"The disk of {self.folder} is full.", "Free some space, or lower disk=.") from full

    def _read(self) -> list[Kept]:
        rows = []
        with suppress(FileNotFoundError):
            for line in (self.folder / "collected.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError, TypeError):  # a line that a power cut left unfinished
                    rows.append(Kept(**json.loads(line)))
        return rows

    def _append(self, row: Kept) -> None:
        """One more line; the file is written anew when half of its lines are of frames that are gone."""
        path = self.folder / "collected.jsonl"
        if self.evicted > len(self.kept):
            self.evicted = 0
            text = "".join(json.dumps(asdict(each)) + "\n" for each in self.kept)
            write_bytes(path, text.encode(), durable=False)
            return
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
        except OSError as error:
            raise FileError(f"Cannot write {path}: {error.strerror}.", "Free some space.") from error
