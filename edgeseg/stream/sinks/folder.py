"""Folders of images: `out/` gets a palette PNG of class ids per frame, of its size (`?size=network`: of the network's
input); `?overlay=1` adds the drawn frames (JPEG).

A mask of an undecided frame says so, and why, in its text (`edgeseg.undecided`). `out/?masks=0&overlay=1` writes
overlays alone. Names follow the frame's number, or the source image's own name.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgeseg.errors import FileError, OptionError
from edgeseg.files import write_bytes
from edgeseg.images import Image, palette_png, write_image
from edgeseg.result import Result
from edgeseg.spec import Spec
from edgeseg.stream.sinks import Info, Sink, check_writable
from edgeseg.stream.uri import Uri, choice, flag

FORMS = "FOLDER/"
UNDECIDED = "edgeseg.undecided"


def claims(uri: Uri) -> bool:
    path = Path(uri.path)
    return not uri.scheme and bool(uri.path) and (uri.path.endswith("/") or path.is_dir() or not path.suffix)


def open(uri: Uri, info: Info) -> Sink:
    path, options = uri.split({"masks": flag, "overlay": flag, "size": choice("frame", "network")})
    return Folder(Path(path), info.spec, **options)


class Folder(Sink):
    def __init__(self, path: Path, spec: Spec, masks: bool = True, overlay: bool = False, size: str = "frame"):
        super().__init__()
        if not masks and not overlay:
            raise OptionError(f"Folder {path} would get neither masks nor overlays.", "Set masks=1 or overlay=1.")
        if path.exists() and not path.is_dir():
            raise FileError(f"{path} is a file, not a folder.", "Give the output folder another name.")
        self.needs_image = overlay
        self.needs_detail = masks and size == "frame"
        self._folder = path
        self._spec = spec
        self._masks = masks
        probe = path / f".edgeseg.{os.getpid()}.tmp"
        check_writable(probe)
        probe.unlink()

    def write(self, result: Result, image: Image | None) -> None:
        self.files = [self._folder]
        name = result.frame.source or f"{result.frame.index:06d}"
        if self._masks:
            classmap = result.at_frame_size() if self.needs_detail else result.classmap
            undecided = result.decision is not None and result.decision.undecided
            text = {UNDECIDED: str(result.decision)} if undecided else None
            png = palette_png(classmap, self._spec.palette, text)
            write_bytes(self._folder / f"{name}.png", png, durable=False)  # there may be many of them
        if image is not None:
            write_image(self._folder / f"{name}.overlay.jpg", image)
