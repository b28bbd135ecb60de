"""Image folders, globs (`frames/*.jpg`, quoted) and single image files, in natural order: frame2 before frame10.

`frames/?fps=10` plays them like a camera.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from pathlib import Path

from edgeseg.errors import FileError
from edgeseg.images import IMAGE_SUFFIXES, list_images, read_image
from edgeseg.result import Frame
from edgeseg.stream.clock import SYSTEM_CLOCK, Clock
from edgeseg.stream.pace import Pace
from edgeseg.stream.sources import EndOfStream, Source
from edgeseg.stream.uri import Uri, number

FORMS = "FOLDER/, 'GLOB*.png'"
OPTIONS = {"fps": number(0.01, 1000)}


def claims(uri: Uri) -> bool:
    path = Path(uri.path)
    image = path.suffix.lower() in IMAGE_SUFFIXES
    pattern = any(c in uri.path for c in "*?[") and not path.is_file()
    return not uri.scheme and (path.is_dir() or image or pattern or uri.path.endswith("/"))


def open(uri: Uri) -> Source:
    text, options = uri.split(OPTIONS)
    path = Path(text)
    if path.is_file():
        found = [path]
    elif any(c in text for c in "*?[") and not path.is_dir():
        found = [Path(p) for p in glob.glob(text) if Path(p).suffix.lower() in IMAGE_SUFFIXES]  # noqa: PTH207
        if not found:
            raise FileError(f"No images match {text}.", f"Expected files ending in {', '.join(IMAGE_SUFFIXES)}.")
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        raise FileError(f"Image {path} does not exist.", "Check the path.")
    else:
        found = list_images(path)
    return Folder(sorted(found, key=natural_order), **options)


def natural_order(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """A key that sorts digits by their value, so that numbers without leading zeros are in order."""
    parts = re.findall(r"[0-9]+|[^0-9]+", str(path))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], str(path)


class Folder(Source):
    """Each frame's `source` is the name its result should carry: the file's stem, made unique where needed."""

    def __init__(self, paths: list[Path], fps: float | None = None, clock: Clock = SYSTEM_CLOCK):
        super().__init__()
        self._clock = clock
        self._paths = paths
        self._index = 0
        self.count = len(paths)
        self.fps = fps
        self.live = fps is not None
        self._pace = Pace(fps, self._clock) if fps else None
        twice = {stem for stem, n in Counter(p.stem for p in paths).items() if n > 1}
        self._names = [f"{i:06d}_{p.stem}" if p.stem in twice else p.stem for i, p in enumerate(paths)]
        self._first = read_image(paths[0])

    def read(self, timeout: float) -> Frame | None:
        if self._index == len(self._paths):
            raise EndOfStream
        if self._pace and not self._pace.wait(timeout):
            return None
        i = self._index
        image = self._first if i == 0 else read_image(self._paths[i])
        self._index += 1
        return Frame(image, i, self._clock.monotonic(), self._names[i])
