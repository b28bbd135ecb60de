"""A labeled dataset on disk: ROOT/{train,val,test}/{images,masks} and ROOT/classes.txt.

classes.txt has one line per class, `id name r g b`, or only the name, whose color is then chosen; names may hold
spaces. A comment `(id N = ignore)` names the id of pixels that never count; a line of that id only gives its color.
SPLIT/instances, where there is one, has a PNG for each mask with the object that each pixel belongs to.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import FileError, unknown
from edgeseg.files import require_file
from edgeseg.images import Image, list_images, read_image, read_instances, read_mask
from edgeseg.spec import Rgb, default_palette

MAX_CLASS_LIST = 1 << 20
SPLITS = ("train", "val", "test")
FULL_LINE = re.compile(r"(\d{1,9})\s+(\S.*?)\s+(\d{1,3})\s+(\d{1,3})\s+(\d{1,3})")
LIKE_A_FULL_LINE = re.compile(r"^\d+(\s|$)|\s\d+\s+\d+\s+\d+$")  # a damaged one, not a name
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
    """One split. `dataset[i]` is (frame [H, W, 3] uint8 BGR, mask [H, W] uint8 of class ids or the ignore id)."""

    root: Path
    split: str
    classes: Classes
    images: tuple[Path, ...]

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
        """ROOT/SPLIT/images and masks, whatever the split is called; FileError for an image without a mask."""
        images = tuple(list_images(root / split / "images"))
        for image in images:
            mask = root / split / "masks" / f"{image.stem}.png"
            if not mask.is_file():
                raise FileError(f"Image {image} has no mask.", f"Expected {mask}.")
        return cls(root, split, classes, images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image, Image]:
        path = self.images[index]
        frame, mask = read_image(path), self.mask(index)
        if frame.shape[:2] != mask.shape:
            raise FileError(
                f"Image {path} is {frame.shape[1]}x{frame.shape[0]} but its mask is {mask.shape[1]}x{mask.shape[0]}.",
                "Both must have the same size; export the mask again.",
            )
        return frame, mask

    def mask(self, index: int) -> Image:
        """[H, W] uint8; FileError for a label outside the classes."""
        path = self.root / self.split / "masks" / f"{self.images[index].stem}.png"
        mask = read_mask(path, self.images[index])
        allowed = np.zeros(256, bool)
        allowed[: len(self.classes.names)] = True
        if self.classes.ignore_index is not None:
            allowed[self.classes.ignore_index] = True
        present = np.bincount(mask.ravel(), minlength=256) > 0
        if (present & ~allowed).any():
            raise FileError(
                f"Mask {path} holds label {int(np.flatnonzero(present & ~allowed)[0])}, outside the "
                f"{len(self.classes.names)} classes.",
                f"Ids run from 0 to {len(self.classes.names) - 1}; ignore is {self.classes.ignore_index}.",
            )
        return mask

    def instances(self, index: int) -> NDArray[np.uint16] | None:
        """[H, W] uint16: the object that each pixel belongs to, 0 for none. None where the dataset does not say."""
        path = self.root / self.split / "instances" / f"{self.images[index].stem}.png"
        if not path.is_file():
            return None
        found, mask = read_instances(path), self.mask(index)
        if found.shape != mask.shape:
            raise FileError(
                f"{path} is {found.shape[1]}x{found.shape[0]}, its mask {mask.shape[1]}x{mask.shape[0]}.",
                "Both must have the same size; import the labels again.",
            )
        return found

    def digest(self) -> str:
        """sha256 over the names and bytes of every image and mask, and the class list."""
        total = hashlib.sha256(self.classes.text().encode())
        for image in self.images:
            for path in (image, self.root / self.split / "masks" / f"{image.stem}.png"):
                total.update(path.name.encode())
                total.update(hashlib.sha256(path.read_bytes()).digest())
        return total.hexdigest()

    def instances_digest(self) -> str:
        """sha256 over the names and bytes of the maps of objects that there are."""
        total = hashlib.sha256()
        for image in self.images:
            path = self.root / self.split / "instances" / f"{image.stem}.png"
            if path.is_file():
                total.update(path.name.encode())
                total.update(hashlib.sha256(path.read_bytes()).digest())
        return total.hexdigest()


def open_splits(root: Path) -> list[Dataset]:
    """Every split that the dataset has, in the order of SPLITS; FileError if there is none."""
    splits = [split for split in SPLITS if (root / split).is_dir()]
    if root.is_dir() and not splits:
        raise FileError(
            f"Dataset {root} has none of the splits {', '.join(SPLITS)}.",
            "Labels of other tools become a dataset with: edgeseg data import.",
        )
    return [Dataset.open(root, split) for split in splits or SPLITS[:1]]


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
