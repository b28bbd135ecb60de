"""Small files that need much memory once they are decoded: the size is known before a pixel is."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.errors import FileError
from edgeseg.image_header import read_header
from edgeseg.images import MAX_PIXELS, read_image, read_mask

PATCH = np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)
READ = "import sys; from pathlib import Path; from edgeseg import images; images.%s(Path(sys.argv[1]))"


def png(path: Path, width: int, height: int, depth: int, color: int) -> Path:
    """A PNG of zeros, which takes 0.1 % of its pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    row, packer = bytes(1 + width * depth * samples // 8), zlib.compressobj(9)
    data = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(6)) if color == 3 else b""
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
    return path


def read_within(mib: int, name: str, path: Path) -> str:
    """The errors of reading a file in a process that may take so much memory."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (mib << 20, mib << 20))

    done = subprocess.run(
        [sys.executable, "-c", READ % name, path],
        capture_output=True, text=True, preexec_fn=limit, timeout=60,
        env={**os.environ, "OPENCV_OPENCL_RUNTIME": "disabled"},
    )  # fmt: skip
    return done.stderr


@pytest.mark.parametrize(("depth", "color", "side"), [(8, 2, 12000), (16, 2, 9000), (8, 6, 12000), (1, 0, 12000)])
def test_an_image_that_would_fill_the_memory_is_refused(tmp_path: Path, depth: int, color: int, side: int) -> None:
    path = png(tmp_path / "i.png", side, side, depth, color)
    assert f"is {side}x{side}" in read_within(400, "read_image", path)


@pytest.mark.parametrize(("depth", "color"), [(8, 0), (16, 0), (8, 3), (8, 2)])
def test_a_mask_that_would_fill_the_memory_is_refused(tmp_path: Path, depth: int, color: int) -> None:
    path = png(tmp_path / "m.png", 12000, 12000, depth, color)
    error = read_within(400, "read_mask", path)
    assert "is 12000x12000" in error or "has 16 bits" in error


def test_the_largest_image_that_is_read_takes_a_gigabyte_at_most(tmp_path: Path) -> None:
    side = int((MAX_PIXELS // 2) ** 0.5)
    assert read_within(1 << 10, "read_image", png(tmp_path / "i.png", side, side, 16, 2)) == ""


@pytest.mark.parametrize("suffix", ["gif", "ppm", "hdr", "pfm", "sr"])
def test_kinds_whose_size_is_not_read_are_not_decoded(tmp_path: Path, suffix: str) -> None:
    """OpenCV can read these, whatever they are called."""
    made, data = cv2.imencode(f".{suffix}", PATCH.astype(np.float32) if suffix in ("hdr", "pfm") else PATCH)
    assert made
    (tmp_path / "i.png").write_bytes(bytes(data))
    for read in (read_image, read_mask):
        with pytest.raises(FileError, match="none of the images that are read here"):
            read(tmp_path / "i.png")


def test_a_chunk_that_claims_more_than_the_file_has(tmp_path: Path) -> None:
    """OpenCV takes 4 GiB for one of 600 bytes."""
    data = bytearray(cv2.imencode(".png", PATCH)[1])
    at = data.find(b"IDAT") - 4
    struct.pack_into(">I", data, at, 0xFFFFFFF0)
    (tmp_path / "i.png").write_bytes(data)
    for read in ("read_image", "read_mask"):
        assert "cannot be decoded" in read_within(300, read, tmp_path / "i.png")


def jpeg(width: int, height: int) -> bytes:
    data = bytearray(cv2.imencode(".jpg", PATCH)[1])
    struct.pack_into(">HH", data, data.find(b"\xff\xc0") + 5, height, width)
    return bytes(data)


def test_a_second_size_cannot_hide_the_first(tmp_path: Path) -> None:
    """JPEG: markers without a length, behind which another parser would see another frame."""
    huge = jpeg(20000, 20000)
    for marker in (b"\xff\x01", b"\xff\xd0", b"\xff\xff"):
        header = read_header(huge[:2] + marker + huge[2:])
        assert header is not None and header.width == 20000


def test_webp_says_its_largest_size() -> None:
    small = bytes(cv2.imencode(".webp", PATCH)[1])
    canvas = struct.pack("<I", 0) + (19999).to_bytes(3, "little") * 2
    for chunks in (
        b"VP8X" + struct.pack("<I", 10) + canvas + small[12:],
        small[12:] + b"VP8X" + struct.pack("<I", 10) + canvas,
    ):
        header = read_header(small[:12] + chunks)
        assert header is not None and (header.width, header.height) == (20000, 20000)


def test_tiff_tags_that_come_twice_and_tiles_larger_than_the_image() -> None:
    def tiff(*tags: tuple[int, int]) -> bytes:
        rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        return b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + bytes(4)

    twice = read_header(tiff((256, 30000), (257, 30000), (256, 8), (257, 8)))
    assert twice is not None and twice.pixels == 30000**2
    tiled = read_header(tiff((256, 8), (257, 8), (322, 30000), (323, 30000)))
    assert tiled is not None and tiled.pixels == 30000**2
    assert read_header(b"II+\0" + tiff((256, 8), (257, 8))[4:]) is None  # BigTIFF has another layout
