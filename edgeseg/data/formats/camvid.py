"""CamVid (http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/) in its usual layouts: masks in color, or of ids.

    SRC/class_dict.csv (name,r,g,b) or SRC/label_colors.txt (r g b name), then
    SRC/SPLIT/NAME.png and SRC/SPLIT_labels/NAME_L.png (or NAME_P.png), or any two folders with such names

Void is ignored. Masks of ids count the classes in the order of the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edgeseg.data.dataset import Classes
from edgeseg.data.formats import NONE, Frame, LabeledFrame, Labels, _colors, _files
from edgeseg.data.labelmap import IGNORE
from edgeseg.data.store import store_image
from edgeseg.errors import FileError
from edgeseg.files import write_bytes
from edgeseg.images import IMAGE_SUFFIXES, Image, write_image
from edgeseg.spec import Rgb

TITLE = "CamVid"
OBJECTS = NONE
LISTS = ("class_dict.csv", "label_colors.txt")
ENDINGS = ("_L", "_P")


def probe(source: Path) -> bool:
    """With images/ it is a folder of masks whose colors are listed."""
    return any((source / name).is_file() for name in LISTS) and not (source / "images").is_dir()


def read(source: Path) -> Labels:
    listed = next((source / name for name in LISTS if (source / name).is_file()), source / LISTS[0])
    colors = _colors.read_colormap(listed)
    classes, ids = _colors.as_classes(colors, str(listed))
    order = [classes.names.index(name) if name in classes.names else IGNORE for name in colors]
    files = sorted(p for p in source.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    masks = {path: stem for path in files if (stem := _image_stem(path))}
    images: dict[str, list[Path]] = {}
    for path in files:
        if path not in masks:
            images.setdefault(path.stem, []).append(path)
    frames = []
    for mask, stem in masks.items():
        split = _files.split_of(mask.parent.name)
        found = images.get(stem, [])
        image = next((p for p in found if _files.split_of(p.parent.name) == split), found[0] if found else None)
        name = mask.relative_to(source).as_posix()
        draw = partial(_draw, mask, ids, order)
        frames.append(LabeledFrame(stem, image or source / f"{stem}.png", draw, split or _files.folder_split(name)))
    if not frames:
        raise FileError(f"{source} has no masks NAME_L.png.", f"Expected them beside {listed.name}, with the images.")
    return Labels(classes, frames)


def _image_stem(path: Path) -> str:
    """The name of the image that a mask belongs to; "" if this is no mask."""
    ending = next((ending for ending in ENDINGS if path.stem.endswith(ending)), "")
    folder = path.parent.name.lower()
    if ending:
        return path.stem.removesuffix(ending)
    return path.stem if folder.endswith(("annot", "_labels", "labels")) else ""


def _draw(path: Path, ids: dict[Rgb, int], order: list[int]) -> Image:
    if _colors.holds_ids(path):
        table = np.array([*order, *[IGNORE] * (256 - len(order))], np.uint8)
        mask: Image = table[_colors.read_ids(path, len(order))]
        return mask
    return _colors.by_color(path, ids, "Give it a line in the list of classes.")


def write(frames: Iterable[Frame], classes: Classes, out: Path) -> Iterator[str]:
    """SPLIT, SPLIT_labels and class_dict.csv, whose last class is Void."""
    void = _colors.free_color(classes.palette)
    renamed = [name.replace(",", " ").replace('"', "'") for name in classes.names]
    rows = [(name, *color) for name, color in [*zip(renamed, classes.palette), ("Void", void)]]
    text = "name,r,g,b\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
    write_bytes(out / "class_dict.csv", text.encode())
    for frame in frames:
        store_image(frame.image, out / frame.split / frame.name)
        colored = _colors.colored(frame.labels.classes, classes.palette, void)
        write_image(out / f"{frame.split}_labels" / f"{frame.name}_L.png", colored)
    if _changed(renamed, classes.names):
        yield "commas and quotes in the names of classes"


def _changed(renamed: Sequence[str], names: Sequence[str]) -> bool:
    return list(renamed) != list(names)
