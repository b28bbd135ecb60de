"""Shards: the files of a split in tar archives that are read by offset, without unpacking.

SPLIT/000000.tar holds KEY.jpg (or another image), KEY.mask.png and, where objects are told apart, KEY.instances.png of
each frame, the layout of WebDataset. SPLIT/000000.json says where each of them starts and what it holds,
SPLIT/index.json which shards there are. One seek gives any frame, so a split in shards is read like one of files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import FileError
from edgeseg.files import require_file
from edgeseg.images import IMAGE_SUFFIXES
from edgeseg.records import Record

INDEX = "index.json"
PARTS = ("images", "masks", "instances")
SHARD_NAME = re.compile(r"\d{6}\.tar")
SHARD_AGAIN = "Write the shards again: edgeseg data shard."


@dataclass(frozen=True)
class Member:
    """A file in a shard: where its content starts, its bytes, and their sha256."""

    offset: int
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ShardFrame:
    """`name`: of the image file in the dataset. `height`, `width`: of the upright image. `pixels`: of each class."""

    name: str
    height: int
    width: int
    pixels: tuple[int, ...]
    image: Member
    mask: Member | None = None
    instances: Member | None = None


@dataclass(frozen=True, kw_only=True)
class ShardContent(Record):
    """What the shard beside this file holds, in the order of the archive."""

    KIND: ClassVar[str] = "shard"
    HINT: ClassVar[str] = SHARD_AGAIN

    size: int
    sha256: str
    frames: tuple[ShardFrame, ...]


@dataclass(frozen=True)
class Shard:
    """`name`: of the archive. `size`: its bytes. `sha256`: of the archive."""

    name: str
    frames: int
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ShardIndex(Record):
    """The shards of a split, and the classes that their masks were written with."""

    KIND: ClassVar[str] = "shards"
    HINT: ClassVar[str] = SHARD_AGAIN

    split: str
    frames: int
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]


@dataclass(frozen=True, eq=False)
class Shards:
    """The open shards of a split; frames are in the order of their names, as in a folder.

    `files`: SHARD/NAME of each image, as errors name it; no such file exists. `archives`: of the split. `archive_of`
    [N]: the archive of each frame. `spans` [N, 3, 2]: offset and size of its image, mask and instances, -1 where there
    is none. `digests` [N, 3, 32]: their sha256. `sizes` [N, 2]: height and width. `pixels` [N, C]: of each class.
    Arrays, not objects: worker processes share their memory.
    """

    files: tuple[Path, ...]
    archives: tuple[Path, ...]
    archive_of: NDArray[np.int32]
    spans: NDArray[np.int64]
    digests: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    pixels: NDArray[np.int64]

    def take(self, indices: Sequence[int]) -> Shards:
        """These frames, in this order."""
        files, chosen = tuple(self.files[i] for i in indices), list(indices)
        return Shards(
            files, self.archives, self.archive_of[chosen], self.spans[chosen], self.digests[chosen],
            self.sizes[chosen], self.pixels[chosen],
        )  # fmt: skip

    def has(self, part: str, index: int) -> bool:
        return bool(self.spans[index, PARTS.index(part), 0] >= 0)

    def sha256(self, part: str, index: int) -> bytes:
        """Of the file, as the index has it."""
        return bytes(self.digests[index, PARTS.index(part)])

    def read(self, part: str, index: int) -> bytes:
        """A frame's file in `part`; FileError where the shard does not hold what its index says."""
        archive = self.archives[self.archive_of[index]]
        offset, size = map(int, self.spans[index, PARTS.index(part)])
        try:
            with archive.open("rb") as file:
                file.seek(offset)
                data: bytes = file.read(size)
        except OSError as error:
            raise FileError(f"Shard {archive} cannot be read: {error.strerror}.", "Check its disk.") from error
        if hashlib.sha256(data).digest() != self.sha256(part, index):
            raise FileError(
                f"Shard {archive} has changed: the {part} of {self.files[index].name} are not those of its index.",
                f"Copy the shard and its index again. {SHARD_AGAIN}",
            )
        return data

    def orders(self) -> list[NDArray[np.int64]]:
        """The frames of each archive, as they follow each other in it."""
        by_place = np.lexsort((self.spans[:, 0, 0], self.archive_of))
        ends = np.cumsum(np.bincount(self.archive_of, minlength=len(self.archives)))
        return np.split(by_place, ends[:-1])


def is_sharded(folder: Path) -> bool:
    """Whether the split in `folder` is in shards."""
    return (folder / INDEX).is_file()


def open_shards(folder: Path, classes: Sequence[str]) -> Shards:
    """The shards of the split in `folder`, of a dataset of these classes.

    FileError for shards that are missing, cut off or of other classes, and for an index that is damaged, names a frame
    twice, or anything outside of its folder and archives.
    """
    index = ShardIndex.load(folder / INDEX)
    if index.classes != tuple(classes):
        raise FileError(
            f"The shards in {folder} have the classes {', '.join(index.classes)}.",
            f"The class list beside them has {', '.join(classes)}. {SHARD_AGAIN}",
        )
    rows = sorted(_rows(folder, index), key=lambda row: row[1].name)
    if not rows:
        raise FileError(f"The shards in {folder} hold no frames.", SHARD_AGAIN)
    stems: dict[str, str] = {}
    for number, frame in rows:
        place = f"{index.shards[number].name}/{frame.name}"
        other = stems.setdefault(Path(frame.name).stem, place)
        if other != place:
            raise FileError(f"Two frames in {folder} have the same name: {other} and {place}.", SHARD_AGAIN)
    parts = [(frame.image, frame.mask, frame.instances) for _, frame in rows]
    return Shards(
        files=tuple(folder / index.shards[number].name / frame.name for number, frame in rows),
        archives=tuple(folder / shard.name for shard in index.shards),
        archive_of=np.array([number for number, _ in rows], np.int32),
        spans=np.array([[(m.offset, m.size) if m else (-1, 0) for m in members] for members in parts], np.int64),
        digests=np.array([[_bytes(m) for m in members] for members in parts], np.uint8),
        sizes=np.array([(frame.height, frame.width) for _, frame in rows], np.int32),
        pixels=np.array([frame.pixels for _, frame in rows], np.int64),
    )


def _rows(folder: Path, index: ShardIndex) -> Iterator[tuple[int, ShardFrame]]:
    """The frames of all shards, each with the number of its shard."""
    for number, shard in enumerate(index.shards):
        if not SHARD_NAME.fullmatch(shard.name):
            raise FileError(f"{folder / INDEX} names a shard {shard.name[:80]!r}.", "Expected NUMBER.tar.")
        path = require_file(folder / shard.name, "Shard")
        if path.stat().st_size != shard.size:
            raise FileError(
                f"Shard {path} has {path.stat().st_size} bytes, its index says {shard.size}.",
                f"It is cut off or another one: copy it again. {SHARD_AGAIN}",
            )
        content = ShardContent.load(path.with_suffix(".json"))
        if (content.sha256, content.size, len(content.frames)) != (shard.sha256, shard.size, shard.frames):
            raise FileError(f"{path.with_suffix('.json')} is of another shard than {INDEX} says.", SHARD_AGAIN)
        for frame in content.frames:
            _check_frame(frame, path, shard.size, len(index.classes))
            yield number, frame


def _check_frame(frame: ShardFrame, path: Path, size: int, classes: int) -> None:
    where = f"{path.with_suffix('.json')}: frame {frame.name[:80]!r}"
    name = Path(frame.name)
    if name.name != frame.name or "\\" in frame.name or "\0" in frame.name or frame.name.startswith("."):
        raise FileError(f"{where} has a name that leads elsewhere.", "Expected the name of an image file.")
    if name.suffix.lower() not in IMAGE_SUFFIXES:
        raise FileError(f"{where} is no image.", f"Expected a name that ends in {', '.join(IMAGE_SUFFIXES)}.")
    if frame.mask is None:
        raise FileError(f"{where} has no mask.", SHARD_AGAIN)
    if len(frame.pixels) != classes or min(*frame.pixels, frame.height - 1, frame.width - 1) < 0:
        raise FileError(f"{where} has impossible counts.", SHARD_AGAIN)
    for member in filter(None, (frame.image, frame.mask, frame.instances)):
        if member.offset < 0 or member.size < 1 or member.offset + member.size > size:
            raise FileError(f"{where} is outside of the shard.", SHARD_AGAIN)
        if not re.fullmatch("[0-9a-f]{64}", member.sha256):
            raise FileError(f"{where} has no sha256.", SHARD_AGAIN)


def _bytes(member: Member | None) -> list[int]:
    return list(bytes.fromhex(member.sha256)) if member else [0] * 32
