"""YOLO segmentation (https://docs.ultralytics.com/datasets/segment/): a text file of normalized polygons per image.

    SRC/data.yaml (names; train, val, test: folders)  SRC/images/[SPLIT/]NAME.jpg  SRC/labels/[SPLIT/]NAME.txt
    or SRC/SPLIT/images and SRC/SPLIT/labels

A line is a class and x, y, x, y ... of the image's width and height. A pixel is inside a polygon if its center is, by
the even-odd rule. Later lines cover earlier ones. An image without a file has no object. Classes follow `background`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edgeseg.data.dataset import SPLITS, Classes, decode_text
from edgeseg.data.formats import SHAPES, Frame, LabeledFrame, Labels, _files
from edgeseg.data.labelmap import BACKGROUND, IGNORE, IGNORED_LABELS, Canvas, LabelMap, objects
from edgeseg.data.store import store_image
from edgeseg.errors import FileError, MissingPackage, first_line
from edgeseg.files import require_file, write_bytes
from edgeseg.geometry import trace
from edgeseg.geometry.regions import by_centers, points
from edgeseg.images import IMAGE_SUFFIXES

TITLE = "YOLO segmentation"
OBJECTS = SHAPES
MAX_YAML = 1 << 20
DEEPEST = 10  # lists inside each other


def probe(source: Path) -> bool:
    return _document(source) is not None


def _document(source: Path) -> Path | None:
    files = [source] if source.is_file() else sorted([*source.glob("*.yaml"), *source.glob("*.yml")])
    found = [p for p in files if p.suffix.lower() in (".yaml", ".yml") and b"names" in p.read_bytes()[:MAX_YAML]]
    return found[0] if len(found) == 1 else None


def read(source: Path) -> Labels:
    path = _document(source)
    if path is None:
        raise FileError(f"{source} is not a YOLO dataset.", "Expected data.yaml with names, images/ and labels/.")
    names = _names(path)
    classes, ids = _files.classes_of(names, str(path))
    top = path.absolute().parent
    frames = []
    for image in sorted(p for p in top.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()):
        parts = list(image.relative_to(top).parts)
        if "images" in parts[:-1]:
            at = len(parts) - 2 - parts[-2::-1].index("images")
            labels = top.joinpath(*parts[:at], "labels", *parts[at + 1 :]).with_suffix(".txt")
            if labels.parent.is_dir():
                name = "/".join(parts)
                draw = partial(_draw, labels, image, names, ids)
                split = _files.folder_split(name)
                frames.append(LabeledFrame(_files.without_split(name), image, draw, split, upright=True))
    return Labels(classes, frames)


def _names(path: Path) -> list[str]:
    """The class names of data.yaml, by their ids. Aliases and deep lists, of which bombs are made, are
    refused."""
    try:
        import yaml
    except ImportError as error:
        raise MissingPackage("pyyaml", "Reading a YOLO dataset", "data") from error
    data = require_file(path, "Labels").read_bytes()
    if len(data) > MAX_YAML:
        raise FileError(f"{path} is larger than {MAX_YAML} bytes.", "Expected a page of YAML.")
    try:
        text = decode_text(data)
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
                raise FileError(f"{path} has aliases (*name) or deep lists.", "Write the names out, in one list.")
        document: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FileError(f"{path} is not valid YAML: {first_line(error)}.", "Export it again.") from None
    names = document.get("names") if isinstance(document, dict) else None
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(n, (str, int)) for n in names):
        raise FileError(f"{path} has no list of names.", "Expected names: [car, ...] or names: {0: car, ...}.")
    return [str(name) for name in names]


def _draw(path: Path, image: Path, names: Sequence[str], ids: dict[str, int]) -> LabelMap:
    height, width = _files.upright_size(image)
    canvas = Canvas(height, width, ids)
    text = decode_text(path.read_bytes()) if path.is_file() else ""
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields:
            continue
        what = f"{path}:{number}: a polygon"
        try:
            class_id, numbers = int(fields[0]), [float(field) for field in fields[1:]]
        except ValueError:
            raise FileError(f"{path}:{number}: cannot read {line[:60]!r}.", "Expected a class and numbers.") from None
        if not 0 <= class_id < len(names):
            raise FileError(f"{path}:{number}: class {class_id}.", f"data.yaml names 0 to {len(names) - 1}.")
        if len(numbers) == 4:
            canvas.lose("boxes without a polygon are left out")
            continue
        ring = points(numbers, what) * (width, height)
        canvas.paint(names[class_id], by_centers([ring], height, width))
    return canvas.finished()


def write(frames: Iterable[Frame], classes: Classes, out: Path) -> Iterator[str]:
    """An object is one polygon along pixel corners, which goes to its parts and holes and back the same way."""
    kept = [i for i, name in enumerate(classes.names) if name != BACKGROUND]
    number_of = {class_id: number for number, class_id in enumerate(kept)}
    seen = defaultdict[str, int](int)
    ignored = 0
    for frame in frames:
        store_image(frame.image, out / "images" / frame.split / frame.name)
        height, width = frame.size
        lines = []
        for item in objects(frame.labels):
            number = number_of.get(item.class_id, len(kept) if item.class_id == IGNORE else None)
            if number is not None:
                ignored += item.class_id == IGNORE
                ring = trace.outline(item.region) / (width, height)
                lines.append(" ".join([str(number), *(f"{value:.9g}" for value in ring.ravel())]) + "\n")
        write_bytes(out / "labels" / frame.split / f"{frame.name}.txt", "".join(lines).encode())
        seen[frame.split] += 1
    names = [classes.names[i] for i in kept] + ([IGNORED_LABELS[0]] if ignored else [])
    quoted = ("".join(c if c not in '"\\' else f"\\{c}" for c in name) for name in names)
    text = "path: .\n" + "".join(f"{split}: images/{split}\n" for split in SPLITS if seen[split])
    text += "names:\n" + "".join(f'  {i}: "{name}"\n' for i, name in enumerate(quoted))
    write_bytes(out / "data.yaml", text.encode())
    if ignored:
        yield f"ignored areas are objects of a class {IGNORED_LABELS[0]}, which YOLO would learn: {ignored}"
