"""A labeled dataset on disk: ROOT/{train,val,test}/{images,masks} and ROOT/classes.txt.

classes.txt has one line per class, `id name r g b`, or only the name, whose color is then chosen; names may hold
spaces. A comment `(id N = ignore)` names the id of pixels that never count; a line of that id only gives its color.
SPLIT/instances, where there is one, has a PNG for each mask with the object that each pixel belongs to. Instead of
folders, a split may have shards (shards.py).
"""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg import user_cache
from edgeseg.data.shards import PARTS, Shards, is_sharded, open_shards
from edgeseg.errors import FileError, OptionError, unknown
from edgeseg.files import require_file, sha256, write_bytes
from edgeseg.images import Image, decode_image, decode_instances, decode_mask, list_images
from edgeseg.spec import Rgb, default_palette

MAX_CLASS_LIST = 1 << 20
SPLITS = ("train", "val", "test")
FULL_LINE = re.compile(r"(\d{1,9})\s+(\S.*?)\s+(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})")
LIKE_A_FULL_LINE = re.compile(r"^\d+(\s|$)|\s\d+\s+\d+\s+\d+$")  # a damaged one, not a name
WHAT = {"images": "Image", "masks": "Mask", "instances": "Map of objects"}
ONLY_A_NAME = re.compile(r"\w[^=\[\]{}<>\"\\]*")  # lines of TOML, JSON or XML are none


@dataclass(frozen=True)
class Classes:
    """`palette`: (r, g, b) of each class. `ignore_index`: the id of pixels that never count."""

    names: tuple[str, ...]
    palette: tuple[Rgb, ...]
    ignore_index: int | None

    def text(self) -> str:
        """The content of classes.txt."""
        rows = [f"{i} {name} {r} {g} {b}" for i, (name, (r, g, b)) in enumerate(zip(self.names, self.palette))]
        note = "" if self.ignore_index is None else f"  (id {self.ignore_index} = ignore)"
        return f"# id name r g b{note}\n" + "\n".join(rows) + "\n"


@dataclass(frozen=True)
class Dataset:
    """One split. `dataset[i]` is (frame [H, W, 3] uint8 BGR, mask [H, W] uint8 of class ids or the ignore id).

    `images`: its image files, or with `shards` the names of what is in them.
    """

    root: Path
    split: str
    classes: Classes
    images: tuple[Path, ...]
    shards: Shards | None = None

    @classmethod
    def open(cls, root: Path | str, split: str) -> Dataset:
        """OptionError for an unknown split, FileError for anything that is missing."""
        root = Path(root)
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        if not root.is_dir():
            raise FileError(f"Dataset {root} does not exist.", "Check the path, or make one: edgeseg synth DIR.")
        if not (root / split).is_dir():
            splits = [s for s in SPLITS if (root / s).is_dir()]
            raise FileError(f"Dataset {root} has no split {split!r}.", f"It has: {', '.join(splits) or 'none'}.")
        return cls.of_split(root, split, read_classes(root / "classes.txt"))

    @classmethod
    def of_split(cls, root: Path, split: str, classes: Classes) -> Dataset:
        """ROOT/SPLIT/images and masks, or its shards, whatever the split is called; FileError for an image without a
        mask."""
        if is_sharded(root / split):
            shards = open_shards(root / split, classes.names)
            return cls(root, split, classes, shards.files, shards)
        images = tuple(list_images(root / split / "images"))
        for image in images:
            mask = root / split / "masks" / f"{image.stem}.png"
            if not mask.is_file():
                raise FileError(f"Image {image} has no mask.", f"Expected {mask}.")
        return cls(root, split, classes, images)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Sequence[int]) -> Dataset:
        """These frames, in this order."""
        images = tuple(self.images[i] for i in indices)
        return replace(self, images=images, shards=self.shards and self.shards.take(indices))

    def __getitem__(self, index: int) -> tuple[Image, Image]:
        path, data = self.images[index], self.read("images", index)
        frame, mask = decode_image(data, path), self._mask(index, data)
        if frame.shape[:2] != mask.shape:
            raise FileError(
                f"Image {path} is {frame.shape[1]}x{frame.shape[0]} but its mask is {mask.shape[1]}x{mask.shape[0]}.",
                "Both must have the same size; export the mask again.",
            )
        return frame, mask

    def read(self, part: str, index: int) -> bytes:
        """The content of a frame's file in `part`: images, masks or instances. FileError where there is none."""
        if self.shards:
            return self.shards.read(part, index)
        return require_file(self._path(part, index), WHAT[part]).read_bytes()

    def paths(self, index: int) -> list[Path]:
        """The files of a frame: its image, its mask and, where there is one, its map of objects."""
        parts = PARTS if self._has_instances(index) else PARTS[:2]
        return [self._path(part, index) for part in parts]

    def _path(self, part: str, index: int) -> Path:
        image = self.images[index]
        if part == "images":
            return image
        return (image.parent if self.shards else self.root / self.split / part) / f"{image.stem}.png"

    def _has_instances(self, index: int) -> bool:
        return self.shards.has("instances", index) if self.shards else self._path("instances", index).is_file()

    def mask(self, index: int) -> Image:
        """[H, W] uint8; FileError for a label outside the classes."""
        return self._mask(index, self.read("images", index))

    def _mask(self, index: int, image: bytes) -> Image:
        """`image`: the content of the image file, whose EXIF tag may turn the mask, too."""
        path = self._path("masks", index)
        mask = decode_mask(self.read("masks", index), path, self.images[index], image)
        allowed = np.zeros(256, bool)
        allowed[: len(self.classes.names)] = True
        if self.classes.ignore_index is not None:
            allowed[self.classes.ignore_index] = True
        present = cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel() > 0
        if (present & ~allowed).any():
            raise FileError(
                f"Mask {path} holds label {int(np.flatnonzero(present & ~allowed)[0])}, outside the "
                f"{len(self.classes.names)} classes.",
                f"Ids run from 0 to {len(self.classes.names) - 1}; ignore is {self.classes.ignore_index}.",
            )
        return mask

    def instances(self, index: int) -> NDArray[np.uint16] | None:
        """[H, W] uint16: the object that each pixel belongs to, 0 for none. None where the dataset does not say."""
        if not self._has_instances(index):
            return None
        path = self._path("instances", index)
        found, mask = decode_instances(self.read("instances", index), path), self.mask(index)
        if found.shape != mask.shape:
            raise FileError(
                f"{path} is {found.shape[1]}x{found.shape[0]}, its mask {mask.shape[1]}x{mask.shape[0]}.",
                "Both must have the same size; import the labels again.",
            )
        return found

    def digest(self) -> str:
        """sha256 over the names and bytes of every image and mask, and the class list; the same in shards."""
        total = hashlib.sha256(self.classes.text().encode())
        for index in range(len(self)):
            for part in ("images", "masks"):
                total.update(self._path(part, index).name.encode())
                total.update(self.sha256(part, index))
        return total.hexdigest()

    def instances_digest(self) -> str:
        """sha256 over the names and bytes of the maps of objects that there are."""
        total = hashlib.sha256()
        for index in filter(self._has_instances, range(len(self))):
            total.update(self._path("instances", index).name.encode())
            total.update(self.sha256("instances", index))
        return total.hexdigest()

    def sha256(self, part: str, index: int) -> bytes:
        """Of a frame's file; shards have it in their index, and compare when they read."""
        return self.shards.sha256(part, index) if self.shards else hashlib.sha256(self.read(part, index)).digest()

    def image_file(self, index: int) -> Path:
        """The image as a file of its own; of shards, a copy in the user's cache."""
        if not self.shards:
            return self.images[index]
        digest = self.sha256("images", index).hex()
        path = user_cache.folder("frames") / (digest + self.images[index].suffix.lower())
        if not path.is_file() or sha256(path) != digest:
            write_bytes(path, self.read("images", index), durable=False)
        return path


def open_splits(root: Path) -> list[Dataset]:
    """Every split that the dataset has, in the order of SPLITS; FileError if there is none."""
    splits = [split for split in SPLITS if (root / split).is_dir()]
    if root.is_dir() and not splits:
        raise FileError(
            f"Dataset {root} has none of the splits {', '.join(SPLITS)}.",
            "Labels of other tools become a dataset with: edgeseg data import.",
        )
    return [Dataset.open(root, split) for split in splits or SPLITS[:1]]


def open_files(root: Path, job: str) -> list[Dataset]:
    """The same of a dataset in files; OptionError, which names the `job` that needs them, for one in shards."""
    require_files(root, job)
    return open_splits(root)


def require_files(root: Path, job: str) -> None:
    """OptionError for a dataset in shards."""
    if any(is_sharded(root / split) for split in SPLITS):
        raise OptionError(
            f"{job} needs a dataset of files; {root} is in shards.", "Give the dataset that they were written from."
        )


def read_classes(path: Path) -> Classes:
    """The content of a classes.txt; FileError with the number of a line that cannot be read."""
    if require_file(path, "Class list").stat().st_size > MAX_CLASS_LIST:
        raise FileError(f"Class list {path} is larger than {MAX_CLASS_LIST} bytes.", "Expected a line for each class.")
    text = decode_text(path.read_bytes())
    note = re.search(r"\(id (\d+) = ignore\)", text)
    ignore = int(note[1]) if note and len(note[1]) <= 3 else None
    if note and (ignore is None or ignore > 255):
        raise FileError(f"{path}: the ignore id is {note[1][:40]}.", "Expected an id from 0 to 255.")
    lines = [(n, line) for n, whole in enumerate(text.splitlines(), 1) if (line := whole.split("#")[0].strip())]
    names_only = bool(lines) and not any(FULL_LINE.fullmatch(line) for _, line in lines)
    names: list[str] = []
    palette: list[Rgb] = []
    for number, line in lines:
        found = FULL_LINE.fullmatch(line)
        if names_only and ONLY_A_NAME.fullmatch(line) and not LIKE_A_FULL_LINE.search(line):
            index, name, color = len(names), line, (0, 0, 0)
        elif found and all(int(value) <= 255 for value in found.groups()[2:]):
            index, name, color = int(found[1]), found[2], (int(found[3]), int(found[4]), int(found[5]))
        else:
            raise FileError(
                f"{path}:{number}: cannot read {line!r}.",
                "Expected: id name r g b (colors from 0 to 255), or in every line only the name",
            )
        if index == ignore:
            continue
        if index != len(names):
            raise FileError(f"{path}:{number}: id {index}, expected {len(names)}.", "Ids count up from 0.")
        names.append(name)
        palette.append(color)
    if len(names) < 2:
        raise FileError(f"{path} lists {len(names)} classes.", "Expected at least two.")
    return Classes(tuple(names), default_palette(len(names)) if names_only else tuple(palette), ignore)


def decode_text(data: bytes) -> str:
    """Text with or without a byte order mark: Windows programs write UTF-8 and UTF-16 with one."""
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if utf16 else "utf-8-sig", errors="replace")
