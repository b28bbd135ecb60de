"""Images and masks as files, read with errors a person can act on and written atomically."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import FileError
from edgeseg.files import require_file, write_bytes
from edgeseg.image_header import (
    GRAY,
    INDEXED,
    PNG,
    ImageHeader,
    indices_as_gray,
    read_header,
    without_turn,
)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 100_000_000  # of 8 bits; half as many of 16
SAMPLE_BITS = (8, 10, 12, 14, 16)
Image = NDArray[np.uint8]


def read_image(path: Path) -> Image:
    """The image as [H, W, 3] uint8 BGR, turned as its EXIF orientation says; 9 to 16 bits are scaled to 8."""
    return decode_image(require_file(path, "Image").read_bytes(), path)


def decode_image(data: bytes, path: Path) -> Image:
    """What read_image gives of a file with this content; `path` names it in errors."""
    data, header = _checked(data, path, "Image")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    return turn(_to_8_bits(_decode(data, path, flags, "Image"), path), header.orientation)


def read_mask(path: Path, image_path: Path | None = None) -> Image:
    """The class map as [H, W] uint8: the stored samples of a PNG with 1, 2, 4 or 8 bits, gray or with a palette.

    `image_path`: the image that it labels, for a class map in the same geometry as read_image gives.
    """
    return decode_mask(require_file(path, "Mask").read_bytes(), path, image_path)


def decode_mask(data: bytes, path: Path, image_path: Path | None = None, image: bytes | None = None) -> Image:
    """What read_mask gives of a file with this content; `path` names it in errors. `image`: the content of the file
    `image_path`, where it is known."""
    data, header = _checked(data, path, "Mask")
    if header.depth > 8:
        raise FileError(
            f"Mask {path} has {header.depth} bits.",
            "Expected one channel of class ids with at most 8 bits; convert color masks to ids first.",
        )
    stored_as_ids = header.color in (GRAY, INDEXED) and header.depth <= 8
    if stored_as_ids:  # OpenCV would turn indices into colors, and scale 1 of 1 bit to 255
        data = indices_as_gray(data)
    mask = _decode(data, path, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION, "Mask")
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise FileError(
            f"Mask {path} has shape {mask.shape} and type {mask.dtype}.",
            "Expected one channel of class ids with at most 8 bits; convert color masks to ids first.",
        )
    if stored_as_ids and header.depth < 8:
        mask = mask // np.uint8(255 // (2**header.depth - 1))
    if image_path is None or header.orientation != 1:
        return turn(mask, header.orientation)
    image = require_file(image_path, "Image").read_bytes() if image is None else image
    return _turn_like(mask, path, image, image_path)


def read_colors(path: Path) -> Image:
    """[H, W, 3] uint8 RGB of a mask in color or with a palette, as it is stored."""
    data, _ = _checked(require_file(path, "Mask").read_bytes(), path, "Mask")
    image = _decode(data, path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, "Mask")
    return np.ascontiguousarray(image[..., ::-1], np.uint8)


def read_instances(path: Path) -> NDArray[np.uint16]:
    """[H, W] uint16: the object that each pixel belongs to, 0 for none, of a gray PNG with 8 or 16 bits."""
    return decode_instances(require_file(path, "Map of objects").read_bytes(), path)


def decode_instances(data: bytes, path: Path) -> NDArray[np.uint16]:
    """What read_instances gives of a file with this content; `path` names it in errors."""
    data, _ = _checked(data, path, "Map of objects")
    found = _decode(data, path, cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION, "Map of objects")
    if found.ndim != 2 or found.dtype not in (np.uint8, np.uint16):
        raise FileError(f"Map of objects {path} has shape {found.shape}.", "Expected one channel of 8 or 16 bits.")
    return found.astype(np.uint16)


def _turn_like(mask: Image, path: Path, image_data: bytes, image_path: Path) -> Image:
    """The mask turned as its image is, unless its size shows that it was drawn on the turned image.

    FileError where the size cannot show that: with a half turn, a mirrored or a square image.
    """
    _, image = _checked(image_data, image_path, "Image")
    stored, turned = (image.height, image.width), (image.width, image.height)
    if image.orientation == 1:
        return mask
    if image.orientation < 5 or stored == turned:
        raise FileError(
            f"Image {image_path} has EXIF orientation {image.orientation}, and its mask {path} may be turned or not.",
            "Store the image upright (mogrify -auto-orient), or remove the tag if the mask fits the stored pixels.",
        )
    return turn(mask, image.orientation) if mask.shape == stored else mask


def turn(image: Image, orientation: int) -> Image:
    """An image as its EXIF orientation (1 to 8) says that it is to be seen."""
    if orientation >= 5:  # stored by columns
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def write_image(path: Path, image: Image) -> None:
    """Encode in the format of the suffix and write atomically, not durably; FileError for an unknown suffix."""
    try:
        ok, data = cv2.imencode(path.suffix or ".png", image)
    except cv2.error:
        ok = False
    if not ok:
        raise FileError(f"Cannot encode {path}.", f"Use one of: {', '.join(IMAGE_SUFFIXES)}.")
    write_bytes(path, data.tobytes(), durable=False)  # there may be many of them


def palette_png(
    classmap: Image, palette: Sequence[tuple[int, int, int]], text: Mapping[str, str] | None = None
) -> bytes:
    """A PNG (ISO 15948, color type 3) whose pixels are the class ids and whose palette shows them in color.

    OpenCV cannot write one. Image programs show the colors; PIL reads the ids back. Ids without a color are black.
    `text`: keyword -> UTF-8 text that travels with it (iTXt chunks; PIL has them in Image.text).
    """
    missing = max(0, int(classmap.max()) + 1 - len(palette))
    height, width = classmap.shape
    rows = np.pad(classmap, ((0, 0), (1, 0)))  # each row starts with its filter: none
    return PNG + b"".join(
        (
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, INDEXED, 0, 0, 0)),
            _chunk(b"PLTE", bytes(channel for color in (*palette, *[(0, 0, 0)] * missing) for channel in color)),
            *(_chunk(b"iTXt", f"{key}\0\0\0\0\0{value}".encode()) for key, value in (text or {}).items()),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), 1)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def resize(frame: Image, height: int, width: int) -> Image:
    """An image stretched to a size (bilinear). How a frame becomes a network's input: fit.py."""
    return np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def list_images(folder: Path) -> list[Path]:
    """The image files of `folder` in name order; FileError if there is none."""
    if not folder.is_dir():
        raise FileError(f"Image folder {folder} does not exist.", "Check the path.")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    if not files:
        raise FileError(f"No images in {folder}.", f"Expected files ending in {', '.join(IMAGE_SUFFIXES)}.")
    return files


def _checked(data: bytes, path: Path, what: str) -> tuple[bytes, ImageHeader]:
    """What is to be decoded, and its header; FileError, before a pixel is decoded, for what is no image of a known kind
    or so large that decoding it could take all the memory."""
    header = read_header(data)
    if header is None or header.width < 1 or header.height < 1:
        raise FileError(
            f"{what} {path} cannot be decoded: it is none of the images that are read here, or damaged.",
            f"Expected the content of one of: {', '.join(IMAGE_SUFFIXES)}.",
        )
    most = MAX_PIXELS if header.depth <= 8 else MAX_PIXELS // 2
    if header.pixels > most:
        raise FileError(
            f"{what} {path} is {header.width}x{header.height}{f' of {header.depth} bits' * (header.depth > 8)}.",
            f"At most {most} pixels; cut it into tiles, or reduce it.",
        )
    return without_turn(data), header


def _undecodable(path: Path, what: str) -> FileError:
    return FileError(f"{what} {path} cannot be decoded.", "The file is corrupt or truncated; write it again.")


def _decode(data: bytes, path: Path, flags: int, what: str) -> NDArray[Any]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise _undecodable(path, what)
    return image


def _to_8_bits(image: NDArray[Any], path: Path) -> Image:
    """Scale samples of 16 bits by as many as are used: 10, 12 and 14 bits often come in the lower ones of 16."""
    if image.dtype == np.uint8:
        return image
    if image.dtype != np.uint16:
        raise FileError(f"Image {path} has samples of type {image.dtype}.", "Expected 8 or 16 bits; convert it.")
    used = int(np.bitwise_or.reduce(image, axis=None))
    left_aligned = used & 0xF == 0  # in the upper bits of 16
    depth = 16 if left_aligned else next(bits for bits in SAMPLE_BITS if used < 1 << bits)
    np.right_shift(image, depth - 8, out=image)  # in place: it may be large
    return image.astype(np.uint8)
