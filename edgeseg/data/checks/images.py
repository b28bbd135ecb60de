"""Image files: unreadable, cut off, turned by EXIF, of 16 bits, with alpha, gray."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeseg.data.checks import Check, Context, Sample
from edgeseg.data.checks._fixing import store_as_read, write_png
from edgeseg.data.store import is_cut_off
from edgeseg.image_header import PNG, png_chunks
from edgeseg.images import read_mask
from edgeseg.results.check import Finding

ERRORS = ("unreadable", "truncated")
GRAY_ALPHA, RGB_ALPHA = 4, 6  # color types of PNG
FIXED_BY_STORING = {"exif-rotated": "stored upright", "16-bit": "scaled to 8 bits", "alpha": "alpha dropped"}


@dataclass(frozen=True)
class _Seen:
    """`gray`: what there is to say if most images have colors. `colored`: whether this one has."""

    findings: list[Finding]
    gray: Finding | None = None
    colored: bool = False


class Images(Check):
    def __init__(self) -> None:
        self.gray: list[Finding] = []
        self.colored = 0

    def look(self, sample: Sample) -> _Seen:
        findings = list(self._findings(sample))
        if sample.pixels is None or sample.header is None:
            return _Seen(findings)
        if not is_gray(sample.small):
            return _Seen(findings, colored=True)
        return _Seen(findings, _finding("grayscale", sample, "It is gray; most images here are in color."))

    def _findings(self, sample: Sample) -> Iterator[Finding]:
        if cut := truncation(sample.data):
            yield _finding("truncated", sample, cut)
        elif sample.problem or sample.pixels is None:
            yield _finding("unreadable", sample, sample.problem.what if sample.problem else "It cannot be read.")
        if sample.pixels is None or sample.header is None:
            return
        if sample.header.orientation != 1:
            turn = f"EXIF orientation {sample.header.orientation}"
            yield _finding("exif-rotated", sample, f"{turn}: programs that ignore it see other pixels than its mask's.")
        if sample.header.depth > 8:
            yield _finding("16-bit", sample, f"{sample.header.depth} bits a sample: read as 8.")
        if has_alpha(sample.data, sample.header.color):
            yield _finding("alpha", sample, "It has an alpha channel, which is not read.")

    def frame(self, seen: _Seen) -> Iterable[Finding]:
        self.colored += seen.colored
        if seen.gray:
            self.gray.append(seen.gray)
        return seen.findings

    def end(self) -> Iterable[Finding]:
        """Gray images are strange among colored ones only."""
        return self.gray if len(self.gray) < self.colored else ()


def _finding(kind: str, sample: Sample, what: str) -> Finding:
    return Finding(kind=kind, file=sample.name, what=what, split=sample.split)


def truncation(data: bytes) -> str:
    """How the end of an image file shows that it was cut off or damaged; "" if it does not."""
    if data.startswith(PNG):
        try:
            chunks = list(png_chunks(data))
        except struct.error:
            chunks = []
        if not chunks or chunks[-1][0] != b"IEND":
            return "The PNG ends before its last chunk."
        if any(struct.pack(">I", zlib.crc32(kind + body)) != crc for kind, body, crc in chunks):
            return "The checksum of a PNG chunk is wrong: it was damaged."
    if data.startswith(b"\xff\xd8") and is_cut_off(data):
        return "The JPEG ends without its end marker: decoders fill the rest with gray."
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        (length,) = struct.unpack_from("<I", data, 4)
        if len(data) < length + 8:
            return f"The WebP has {len(data)} of {length + 8} bytes."
    return ""


def has_alpha(data: bytes, color: int | None) -> bool:
    if color is not None:
        transparent = color in (GRAY_ALPHA, RGB_ALPHA)
        return transparent or any(kind == b"tRNS" for kind, _, _ in png_chunks(data))
    if data.startswith(b"RIFF") and data[12:16] == b"VP8X":
        return bool(data[20] & 0x10)  # RFC 9649, 2.7
    return data.startswith(b"RIFF") and data[12:16] == b"VP8L" and bool(data[24] & 0x10)


def is_gray(pixels: np.ndarray) -> bool:
    """Whether no pixel of [H, W, 3] uint8 has a color."""
    return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())


def open(context: Context) -> Check:
    return Images()


def fix(finding: Finding, context: Context) -> str:
    """Store the image as what edgeseg reads of it; a mask that fits the stored pixels is turned with it."""
    path = context.root / finding.file
    if finding.kind not in FIXED_BY_STORING or not path.exists():
        return ""  # another finding of the same file was fixed first
    if truncation(path.read_bytes()):
        return ""  # what is missing would look like a part of the picture
    mask = path.parent.parent / "masks" / f"{path.stem}.png"
    if finding.kind == "exif-rotated" and mask.exists():
        _turn(mask, path)
    new = store_as_read(path, context)
    return f"{finding.file}: {FIXED_BY_STORING[finding.kind]}, now {new}" if new else ""


def _turn(mask: Path, image: Path) -> None:
    """First the mask: until the image follows, the sizes show that it is upright already."""
    write_png(mask, read_mask(mask, image))
