"""Formats of labels: one module each, found by its file name, imported on first use.

A format module has
    TITLE: str                        for messages
    probe(source: Path) -> bool       whether `source` looks like this format; reads names and little else, never raises
    read(source: Path) -> Labels      FileError where nothing of it can be read
and, where edgeseg can write it,
    OBJECTS: str                      NONE, KEPT, or SHAPES: whether it tells objects apart
    write(frames: Iterable[Frame], classes: Classes, out: Path) -> Iterable[str]
                                      one frame at a time into the folder `out`; what the format cannot hold, in words
and imports nothing of another format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from edgeseg import plugins
from edgeseg.data.dataset import Classes
from edgeseg.data.datasheet import NAME as DATASHEET
from edgeseg.data.formats import _files
from edgeseg.data.labelmap import BACKGROUND, IGNORE, IGNORED_LABELS, LabelMap, Object, objects
from edgeseg.errors import FileError, OptionError
from edgeseg.images import Image

NONE, KEPT = "none", "kept"
SHAPES = "shapes"  # every shape is an object: what belongs to none becomes one


@dataclass(frozen=True)
class LabeledFrame:
    """`name`: without a suffix, may hold folders. `mask`: makes the class map [H, W] uint8, or a LabelMap; FileError
    where that cannot be done. `split`: train, val, test, or "" where the format does not say. `upright`: labels are
    drawn on the image as its EXIF orientation turns it. `data`: the image's content, where it is no file."""

    name: str
    image: Path
    mask: Callable[[], Image | LabelMap]
    split: str = ""
    upright: bool = False
    data: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class Labels:
    """`losses`: what the format holds and a class map cannot, in words; more may come with each frame's LabelMap.
    `from_colors`: nobody named the classes, they are the colors that the masks use."""

    classes: Classes
    frames: Iterable[LabeledFrame]
    losses: tuple[str, ...] = ()
    from_colors: bool = False


@dataclass(frozen=True)
class Frame:
    """A frame to write. `labels` fit the upright image, which is what store_image writes."""

    name: str
    split: str
    image: Path
    labels: LabelMap

    def shapes(self, classes: Classes) -> Iterator[tuple[str, Object]]:
        """Every object, and the rest of every class, with its label; not the background, which no shape covers."""
        for item in objects(self.labels):
            label = IGNORED_LABELS[0] if item.class_id == IGNORE else classes.names[item.class_id]
            if label != BACKGROUND:
                yield label, item

    @property
    def size(self) -> tuple[int, int]:
        """Height, width."""
        height, width = self.labels.classes.shape
        return height, width


def names() -> list[str]:
    return plugins.names(__name__)


def get(name: str) -> ModuleType:
    """The format called `name`; OptionError if there is none."""
    return plugins.get(__name__, "format", name)


def writable() -> list[str]:
    return [name for name in names() if hasattr(get(name), "write")]


def get_writer(name: str) -> ModuleType:
    """The format called `name`; OptionError if it cannot be written."""
    module = get(name)
    if not hasattr(module, "write"):
        raise OptionError(f"Labels cannot be written as {name}.", f"Formats that can: {', '.join(writable())}.")
    return module


def detect(source: Path) -> tuple[str, Path]:
    """The name of the only format that `source` looks like, and where its labels begin: `source`, or the only folder
    in it. FileError if it is none, or more than one."""
    if not source.exists():
        raise FileError(f"Labels {source} do not exist.", "Check the path.")
    found = [name for name in names() if get(name).probe(source)]
    if not found and (inner := only_folder(source)):
        return detect(inner)
    if len(found) != 1:
        what = f"looks like {' and '.join(found)}" if found else "is in no format that edgeseg knows"
        broken = "" if found else "".join(f" {path.name} cannot be read." for path in _broken(source))
        raise FileError(f"{source} {what}.{broken}", f"Say which: --format {' or '.join(found or names())}.")
    return found[0], source


def only_folder(source: Path) -> Path | None:
    """The folder in `source` if there is nothing else, as archives often have one."""
    beside = ("__MACOSX", DATASHEET)
    inside = [p for p in source.iterdir() if p.name not in beside and p.name[0] != "."] if source.is_dir() else []
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else None


def _broken(source: Path) -> list[Path]:
    """The documents, of the first few, that are no JSON or XML."""
    files = [source] if source.is_file() else sorted(p for p in source.glob("*") if p.is_file())[:20]
    return [
        path
        for path in files
        if (path.suffix.lower() == ".json" and not _files.keys(path))
        or (path.suffix.lower() == ".xml" and not _files.root_tag(path))
    ]
