"""What formats share: JSON and XML of others read safely, images found, splits and labels named."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree
from xml.parsers import expat

import cv2
import msgspec
import numpy as np

from edgeseg.data.dataset import Classes
from edgeseg.data.labelmap import BACKGROUND, IGNORE, IGNORED_LABELS, MOST_CLASSES
from edgeseg.errors import FileError, first_line
from edgeseg.files import require_file
from edgeseg.geometry.regions import Mask
from edgeseg.image_header import INDEXED, indices_as_gray, read_header
from edgeseg.images import IMAGE_SUFFIXES, MAX_PIXELS
from edgeseg.spec import Rgb, default_palette

T = TypeVar("T")
SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
               "testing": "test"}  # fmt: skip
PANOPTIC = "segments_info of annotations"  # in place of a key
DEEPEST = 50  # elements of XML inside each other
HEADER_BYTES = 1 << 18  # enough for the header of an image whose EXIF holds a thumbnail


def decode(data: bytes | msgspec.Raw, kind: type[T], what: str) -> T:
    """JSON as `kind`, every type checked; FileError, which begins with `what`, where it does not fit."""
    try:
        try:
            return msgspec.json.decode(data, type=kind, strict=False)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            # NaN and a byte order mark, which Python's reader takes; NaN becomes null
            plain = json.loads(bytes(data).decode("utf-8-sig"))
            return msgspec.json.decode(msgspec.json.encode(plain), type=kind, strict=False)
    except (ValueError, RecursionError, OverflowError) as error:  # msgspec's are ValueErrors, too
        raise FileError(f"{what} cannot be read: {first_line(error)}.", "Export it again.") from None


def read_document(path: Path, kind: type[T]) -> T:
    return decode(require_file(path, "Labels").read_bytes(), kind, str(path))


def not_this(source: Path, what: str, hint: str) -> FileError:
    """The error for a source that is not `what`: its JSON cannot be read at all, or is something else."""
    if source.is_file() and source.suffix.lower() == ".json":
        try:
            read_document(source, Any)
        except FileError as error:
            return error
    return FileError(f"{source} is not {what}.", hint)


def keys(path: Path) -> frozenset[str]:
    """The keys of the JSON object in `path`; of a list, those of its first entry after "[]". Empty if it is none."""
    try:
        stat = path.stat()
        return _keys(path, stat.st_size, stat.st_mtime_ns)
    except OSError:
        return frozenset()


@lru_cache(maxsize=64)
def _keys(path: Path, size: int, changed: int) -> frozenset[str]:
    try:
        data = path.read_bytes()
        document: Any = decode(data, dict[str, msgspec.Raw] | list[msgspec.Raw], "")  # type: ignore[arg-type]
        if isinstance(document, dict):
            return frozenset(document) | ({PANOPTIC} if b'"segments_info"' in data else set())
        return frozenset(("[]", *(decode(document[0], dict[str, msgspec.Raw], "") if document else ())))
    except (FileError, OSError):
        return frozenset()


def json_files(source: Path, *folders: str) -> list[Path]:
    """`source`, or the JSON files that it and its `folders` hold."""
    if source.is_file():
        return [source] if source.suffix.lower() == ".json" else []
    return sorted(p for folder in ("", *folders) for p in (source / folder).glob("*.json") if p.is_file())


def read_xml(path: Path) -> Iterator[ElementTree.Element]:
    """Each element below the root once it is whole; it is emptied afterwards, so that memory stays flat.

    FileError for XML that is broken or declares a document type: entities are how XML bombs and spies are made.
    """
    try:
        with require_file(path, "Labels").open("rb") as file:
            check = expat.ParserCreate()
            check.StartDoctypeDeclHandler = _no_doctype
            check.ParseFile(file)
            file.seek(0)
            depth = 0
            for event, element in ElementTree.iterparse(file, ("start", "end")):
                depth += 1 if event == "start" else -1
                if depth > DEEPEST:  # what walks through it later would run out of stack
                    raise ValueError("elements are nested too deep")
                if event == "end" and depth == 1:
                    yield element
                    element.clear()
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise FileError(f"{path} cannot be read: {first_line(error)}.", "Export it again.") from None


def _no_doctype(*_: object) -> None:
    raise FileError("The XML declares a document type or entities.", "Labels need none; export them again.")


def root_tag(path: Path) -> str:
    """The name of an XML file's root element; "" if it is none."""
    try:
        with path.open("rb") as file:
            for _, element in ElementTree.iterparse(file, ("start",)):
                return str(element.tag)
    except (OSError, ElementTree.ParseError, ValueError, LookupError):
        pass
    return ""


def find_image(name: str, *folders: Path, within: Path | None = None) -> Path:
    """Where the image called `name` lies: in one of `folders`, by its name there or by its last part; never outside
    of `within` (default: the folder itself). The first place tried if it is nowhere."""
    clean = name.replace("\\", "/").split("?")[0]
    tries = [clean, clean.rpartition("/")[2]]
    if "\0" in clean or len(clean) > 1000 or not tries[1]:
        return folders[0] / re.sub(r"[^\w.-]", "_", clean)[-200:]
    for candidate in dict.fromkeys(tries):
        for folder in folders:
            place = Path(os.path.normpath(folder / candidate))
            top = Path(os.path.normpath(within or folder))
            try:
                if top in place.parents and place.is_file():
                    return place
            except OSError:  # a name that no file can have
                break
    return folders[0] / re.sub(r"[^\w.-]", "_", tries[1])[-200:]


def image_of(stem: Path) -> Path | None:
    """The image `stem` with any suffix."""
    for suffix in IMAGE_SUFFIXES:
        for place in (stem.with_name(stem.name + suffix), stem.with_name(stem.name + suffix.upper())):
            if place.is_file():
                return place
    return None


def upright_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image as its EXIF orientation turns it, from its header."""
    with require_file(path, "Image").open("rb") as file:
        header = read_header(file.read(HEADER_BYTES)) or read_header(path.read_bytes())
    if header is None:
        raise FileError(f"Image {path} cannot be decoded.", "The file is corrupt or truncated; write it again.")
    return (header.width, header.height) if header.orientation >= 5 else (header.height, header.width)


def split_of(name: str) -> str:
    """The split that a folder in a path, or a word in a file's name, says; "" if none or more than one does."""
    words = re.split(r"[^a-z]+", name.lower())
    found = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else ""


def folder_split(name: str) -> str:
    """split_of for the folders of a path only: a file may be called test.jpg."""
    folder = name.replace("\\", "/").rpartition("/")[0]
    return next((SPLIT_WORDS[part.lower()] for part in folder.split("/") if part.lower() in SPLIT_WORDS), "")


def without_split(name: str) -> str:
    """A frame's name from its path: no suffix, and no folder that only says the split."""
    folders, _, file = name.replace("\\", "/").rpartition("/")
    kept = [part for part in folders.split("/") if part and part.lower() not in (*SPLIT_WORDS, "images")]
    return "/".join([*kept, os.path.splitext(file)[0] or file])  # noqa: PTH122


def classes_of(
    labels: Iterable[str], what: str, palette: dict[str, Rgb] | None = None
) -> tuple[Classes, dict[str, int]]:
    """The classes of a format of shapes, and the id of each label: background first, which is what nothing covers."""
    named = [label for label in dict.fromkeys(labels) if label not in IGNORED_LABELS]
    others = [label for label in named if label not in (BACKGROUND, "_background_")]
    names = (BACKGROUND, *others)
    if not 2 <= len(names) <= MOST_CLASSES:
        raise FileError(f"{what} has {len(others)} labels.", f"Expected 1 to {MOST_CLASSES - 1}.")
    colors = [(palette or {}).get(name, color) for name, color in zip(names, default_palette(len(names)))]
    ids = {name: i for i, name in enumerate(names)} | dict.fromkeys(IGNORED_LABELS, IGNORE) | {"_background_": 0}
    return Classes(names, tuple(colors), IGNORE), ids


def png_mask(data: bytes, what: str) -> Mask:
    """[H, W]: where a PNG of one object is not 0, or, if it has an alpha channel, not transparent."""
    header = read_header(data)
    if header is None or not 0 < header.width * header.height <= MAX_PIXELS:
        raise FileError(f"{what} has a mask that is no PNG, or too large.", "Export it again.")
    try:
        if header.color == INDEXED:
            data = indices_as_gray(data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise FileError(f"{what} has a mask that cannot be decoded.", "Export it again.")
    if image.ndim == 3:
        image = image[..., 3] if image.shape[2] == 4 else image.max(axis=2)
    return np.asarray(image > 0)


def base64_bytes(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise FileError(f"{what} holds something else than base64.", "Export it again.") from None


def hex_color(text: str) -> Rgb | None:
    """#rrggbb; None for anything else."""
    try:
        r, g, b = bytes.fromhex(text.removeprefix("#"))
        return r, g, b
    except ValueError:
        return None


def mask_png(mask: Mask) -> bytes:
    """A mask as a PNG of 0 and 255."""
    return cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()
