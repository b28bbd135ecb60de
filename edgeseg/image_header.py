"""What the first bytes of an image file say: its size, before memory is taken for its pixels, and its EXIF turn.

Formats: PNG (ISO 15948), JPEG (ITU-T T.81), WebP (RFC 9649), BMP, TIFF 6.0. EXIF's orientation: tag 274 (CIPA DC-008).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

PNG = b"\x89PNG\r\n\x1a\n"
WIDTH, HEIGHT, BITS, ORIENTATION, TILE_WIDTH, TILE_HEIGHT = 256, 257, 258, 274, 322, 323  # TIFF tags
NO_LENGTH = (0x01, *range(0xD0, 0xD9))  # JPEG markers that stand alone
NO_FRAME = (0xC4, 0xC8, 0xCC)  # JPEG markers among the SOFn that start no frame
GRAY, INDEXED = 0, 3  # PNG color types


@dataclass(frozen=True)
class ImageHeader:
    """Pixels as they are stored, and the EXIF orientation (1 to 8) that says how to turn them.

    `depth`: bits of a sample. `color`: color type of a PNG. `tile`: pixels of a TIFF's tile, which may be larger than
    the image.
    """

    width: int
    height: int
    orientation: int = 1
    depth: int = 8
    color: int | None = None
    tile: int = 0

    @property
    def pixels(self) -> int:
        """How many a decoder needs memory for."""
        return max(self.width * self.height, self.tile)


def read_header(data: bytes) -> ImageHeader | None:
    """The header of an image file's content; None where it cannot be understood."""
    try:
        if data.startswith(PNG):
            return _png(data)
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data)
        if data.startswith(b"BM"):
            return _bmp(data)
        return _tiff(data)
    except (struct.error, IndexError, KeyError):
        return None


def indices_as_gray(data: bytes) -> bytes:
    """The PNG `data` (gray or with a palette, at most 8 bits) as a gray one, so that a decoder gives its raw samples.

    Pixels of a palette PNG are stored exactly like those of a gray one, so only the header has to change. What would
    make a decoder change samples (palette, transparency, gamma) is left out.
    """
    kept = [PNG]
    for kind, body, crc in png_chunks(data):
        if kind == b"IHDR":
            body = body[:9] + bytes([GRAY]) + body[10:]
            crc = struct.pack(">I", zlib.crc32(kind + body))
        if kind in (b"IHDR", b"IDAT", b"IEND"):
            kept += [struct.pack(">I", len(body)), kind, body, crc]
    return b"".join(kept)


def without_turn(data: bytes) -> bytes:
    """The TIFF `data` without its orientation: OpenCV turns TIFFs whether asked to or not, and fails from 5 on."""
    try:
        _, at = _tiff_tags(data)[ORIENTATION]
    except (struct.error, KeyError):
        return data
    return data[:at] + (b"\1\0" if data.startswith(b"II") else b"\0\1") + data[at + 2 :]


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(kind, body, checksum) of each chunk."""
    at = len(PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length], data[at + 8 + length : at + 12 + length]
        at += 12 + length


def _png(data: bytes) -> ImageHeader:
    if data[12:16] != b"IHDR":
        raise KeyError("IHDR")
    width, height, depth, color = struct.unpack_from(">IIBB", data, 16)
    _require_whole_chunks(data)
    exif = next((body for kind, body, _ in png_chunks(data) if kind == b"eXIf"), b"")
    return ImageHeader(width, height, _orientation(exif), depth, color)


def _require_whole_chunks(data: bytes) -> None:
    """IndexError where a chunk claims more than the file has: OpenCV takes memory for what it claims, up to 4 GiB."""
    at = len(PNG)
    while data[at + 4 : at + 8] != b"IEND":
        (length,) = struct.unpack_from(">I", data, at)
        at += 12 + length
        if at > len(data):
            raise IndexError("a chunk ends behind the file")


def _jpeg(data: bytes) -> ImageHeader:
    at, orientation = 2, 1
    while True:
        while data[at] == 0xFF:  # markers may have several
            at += 1
        marker = data[at]
        if marker in NO_LENGTH:
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 1)
        body = data[at + 3 : at + 1 + length]
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = _orientation(body[6:])
        if 0xC0 <= marker <= 0xCF and marker not in NO_FRAME:
            depth, height, width = struct.unpack_from(">BHH", body)
            return ImageHeader(width, height, orientation, 16 if depth > 8 else 8)
        at += 1 + length


def _webp(data: bytes) -> ImageHeader:
    at, sizes, orientation = 12, [(0, 0)], 1  # of the canvas and of what is drawn on it
    while at + 8 <= len(data):
        kind, (length,) = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        body = data[at + 8 : at + 8 + length]
        if kind == b"VP8X":
            sizes.append((int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1))
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", body, 1)
            sizes.append(((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1))
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", body, 6)
            sizes.append((width & 0x3FFF, height & 0x3FFF))
        elif kind == b"EXIF":
            orientation = _orientation(body.removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2
    return ImageHeader(*max(sizes, key=lambda size: size[0] * size[1]), orientation)


def _bmp(data: bytes) -> ImageHeader:
    old = struct.unpack_from("<I", data, 14)[0] == 12
    width, height = struct.unpack_from("<HH" if old else "<ii", data, 18)
    return ImageHeader(width, abs(height))


def _tiff(data: bytes) -> ImageHeader:
    if data[2:4] not in (b"*\0", b"\0*"):  # not BigTIFF, which has another layout
        raise KeyError("version")
    tags = _tiff_tags(data)
    tile = tags.get(TILE_WIDTH, (0, 0))[0] * tags.get(TILE_HEIGHT, (0, 0))[0]
    depth = max(8, tags.get(BITS, (1, 0))[0])
    return ImageHeader(tags[WIDTH][0], tags[HEIGHT][0], _orientation(data), depth, tile=tile)


def _orientation(exif: bytes) -> int:
    try:
        value, _ = _tiff_tags(exif).get(ORIENTATION, (1, 0))
    except struct.error:
        return 1
    return value if 1 <= value <= 8 else 1


def _tiff_tags(data: bytes) -> dict[int, tuple[int, int]]:
    """The numbers of a TIFF's first directory and where they are stored, by tag. struct.error if there is none."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise struct.error("no TIFF")
    _, directory = struct.unpack_from(f"{order}HI", data, 2)
    (count,) = struct.unpack_from(f"{order}H", data, directory)
    tags: dict[int, tuple[int, int]] = {}
    for i in range(count):
        at = directory + 2 + 12 * i
        tag, kind, number = struct.unpack_from(f"{order}HHI", data, at)
        if kind not in (3, 4) or number < 1:  # SHORT, LONG
            continue
        place = at + 8  # or where the numbers are, if they need more than 4 bytes
        if number * (2 if kind == 3 else 4) > 4:
            (place,) = struct.unpack_from(f"{order}I", data, place)
        (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, place)
        if tag not in tags or value > tags[tag][0]:  # of one that is there twice, no reader takes more than the largest
            tags[tag] = value, place
    return tags
