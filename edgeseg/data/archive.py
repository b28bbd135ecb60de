"""Archives of labels (zip, tar, tar.gz) as folders: unpacked beside the output, checked name by name, always removed.

Nothing in an archive is trusted: absolute names, `..`, links, devices, too many or too large entries, and contents that
grow far more than any label does are refused before or while they are written.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeseg.errors import FileError, first_line

MAX_ENTRIES = 1_000_000
MAX_ENTRY = 4 << 30  # bytes
MAX_TOTAL = 256 << 30
MAX_RATIO = 200  # of content to archive: masks of one color reach 100 and more, bombs 1000
RATIO_FROM = 64 << 20  # bytes of content from which the ratio counts: a small file may be very regular
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
BLOCK = 1 << 20
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError,
          ValueError)  # fmt: skip


@dataclass
class _Budget:
    """What may still be written."""

    archive: Path
    packed: int
    entries: int = 0
    written: int = 0

    def entry(self, name: str) -> None:
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise _refused(self.archive, name, f"it has more than {MAX_ENTRIES} entries")

    def write(self, name: str, size: int, of_entry: int) -> None:
        self.written += size
        if of_entry > MAX_ENTRY or self.written > MAX_TOTAL:
            raise _refused(self.archive, name, "it is too large")
        if self.written > max(RATIO_FROM, MAX_RATIO * self.packed):
            raise _refused(self.archive, name, f"the content is more than {MAX_RATIO} times as large as the archive")


@contextmanager
def opened(source: Path, beside: Path) -> Iterator[Path]:
    """`source`, or, if it is an archive, a folder with its content beside `beside` until the block ends.

    FileError for an archive that is broken or holds what it should not.
    """
    if not source.is_file() or not source.name.lower().endswith(SUFFIXES):
        yield source
        return
    beside = beside.resolve()
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{beside.name}.unpacked.", dir=beside.parent))
    except OSError as error:
        raise FileError(f"Cannot write {beside}: {error.strerror}.", "Choose a folder you may write.") from error
    try:
        folder = work / "archive" / "content"  # what a format looks for above the labels is empty, too
        folder.mkdir(parents=True)
        try:
            _unpack(source, folder)
        except BROKEN as error:
            raise FileError(f"Archive {source} cannot be read: {first_line(error)}.", "Copy it again.") from None
        yield folder
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _unpack(source: Path, folder: Path) -> None:
    budget = _Budget(source, source.stat().st_size)
    if source.suffix.lower() == ".zip":
        with zipfile.ZipFile(source) as archive:
            for info in archive.infolist():
                kind = info.external_attr >> 28  # the upper bits of a Unix mode; 0 where there is none
                if kind not in (0, 4, 8):
                    raise _refused(source, info.filename, "it is a link or a device")
                place = _place(source, info.filename, folder, budget)
                if not info.is_dir():
                    with archive.open(info) as content:
                        _copy(content, place, info.filename, budget)
        return
    with tarfile.open(source, "r:*") as tar:
        for member in tar:
            if not (member.isfile() or member.isdir()):
                raise _refused(source, member.name, "it is a link or a device")
            place = _place(source, member.name, folder, budget)
            data = tar.extractfile(member) if member.isfile() else None
            if data:
                _copy(data, place, member.name, budget)


def _place(source: Path, name: str, folder: Path, budget: _Budget) -> Path:
    budget.entry(name)
    parts = name.replace("\\", "/").rstrip("/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise _refused(source, name, "it leads out of the archive")
    return folder.joinpath(*(part for part in parts if part not in ("", ".")))


def _copy(content: IO[bytes], place: Path, name: str, budget: _Budget) -> None:
    if place.exists():
        raise _refused(budget.archive, name, "it is there twice")
    place.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with place.open("xb") as file:
        while block := content.read(BLOCK):
            size += len(block)
            budget.write(name, len(block), size)
            file.write(block)


def _refused(archive: Path, name: str, why: str) -> FileError:
    return FileError(
        f"Archive {archive} is refused at entry {name[:200]!r}: {why}.",
        "Unpack it yourself if you trust it, and import the folder.",
    )
