"""Folders of images: `out/` gets one palette PNG of class ids per frame; `?overlay=1` adds the drawn frames (JPEG).

`out/?masks=0&overlay=1` writes overlays alone. Names follow the frame's number, or the source image's own name.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from edgeseg.errors import FileError, OptionError
from edgeseg.files import write_bytes
from edgeseg.images import Image, write_image
from edgeseg.segmenter import Result
from edgeseg.spec import Rgb
from edgeseg.stream.sinks import Info, Sink, check_writable
from edgeseg.stream.uri import Uri, flag

FORMS = "FOLDER/"


def claims(uri: Uri) -> bool:
    path = Path(uri.path)
    return not uri.scheme and bool(uri.path) and (uri.path.endswith("/") or path.is_dir() or not path.suffix)


def open(uri: Uri, info: Info) -> Sink:
    path, options = uri.split({"masks": flag, "overlay": flag})
    return Folder(Path(path), info.spec.palette, **options)


class Folder(Sink):
    def __init__(self, path: Path, palette: tuple[Rgb, ...], masks: bool = True, overlay: bool = False):
        super().__init__()
        if not masks and not overlay:
            raise OptionError(f"Folder {path} would get neither masks nor overlays.", "Set masks=1 or overlay=1.")
        if path.exists() and not path.is_dir():
            raise FileError(f"{path} is a file, not a folder.", "Give the output folder another name.")
        self.needs_image = overlay
        self._folder = path
        self._palette = palette
        self._masks = masks
        probe = path / f".edgeseg.{os.getpid()}.tmp"
        check_writable(probe)
        probe.unlink()

    def write(self, result: Result, image: Image | None) -> None:
        self.files = [self._folder]
        name = result.frame.source or f"{result.frame.index:06d}"
        if self._masks:
            write_bytes(self._folder / f"{name}.png", palette_png(result.classmap, self._palette))
        if image is not None:
            write_image(self._folder / f"{name}.overlay.jpg", image)


def palette_png(classmap: Image, palette: tuple[Rgb, ...]) -> bytes:
    """A PNG (ISO 15948, color type 3) whose pixels are the class ids and whose palette shows them in color.

    OpenCV cannot write one. Image programs show the colors; PIL reads the ids back.
    """
    height, width = classmap.shape
    rows = b"".join(b"\0" + row.tobytes() for row in classmap)  # each row starts with its filter: none
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", bytes(channel for color in palette for channel in color)),
            _chunk(b"IDAT", zlib.compress(rows, 1)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
