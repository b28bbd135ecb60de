"""Images of a dataset: checked before they are decoded, copied as they are, or stored upright."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgeseg.errors import FileError
from edgeseg.files import require_file
from edgeseg.image_header import ImageHeader, read_header
from edgeseg.images import MAX_PIXELS, Image, read_image, write_image

MAX_SIDE = 65535
JPEG_END = b"\xff\xd9"


def check_image(path: Path) -> ImageHeader:
    """The header of an image file; FileError if it is none, of absurd size, or a JPEG that was cut off, which decoders
    fill with gray."""
    data = require_file(path, "Image").read_bytes()
    header = read_header(data)
    if header is None:
        raise FileError(f"Image {path} cannot be decoded.", "The file is corrupt or truncated; write it again.")
    if not 0 < max(header.width, header.height) <= MAX_SIDE or header.width * header.height > MAX_PIXELS:
        raise FileError(
            f"Image {path} is {header.width}x{header.height}.", f"At most {MAX_SIDE} on a side, {MAX_PIXELS} pixels."
        )
    if data.startswith(b"\xff\xd8") and is_cut_off(data):
        raise FileError(f"Image {path} is cut off.", "Copy it again.")
    return header


def is_cut_off(jpeg: bytes) -> bool:
    """Whether a JPEG ends without its end marker."""
    return JPEG_END not in jpeg[_scan(jpeg) :]


def _scan(data: bytes) -> int:
    """Where a JPEG's pixels begin: behind its header, whose EXIF may hold a whole JPEG."""
    at = 2
    while at + 4 <= len(data) and data[at : at + 2] != b"\xff\xda":
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


def store_image(path: Path, target: Path, image: Image | None = None) -> Path:
    """Copy to `target` + the suffix of `path`; an image with an EXIF turn is stored upright, as PNG, so that nothing
    can turn it otherwise. `image`: its pixels, where they are known. The file that was written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    header = read_header(path.read_bytes())
    turned = header is not None and header.orientation != 1
    place = target.with_name(target.name + (".png" if turned else path.suffix.lower()))
    if turned:
        write_image(place, read_image(path) if image is None else image)
    else:
        shutil.copyfile(path, place)
    return place
