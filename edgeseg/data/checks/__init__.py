"""Checks of a dataset: one module each, found by its file name.

A check module has
    ERRORS: tuple[str, ...]           kinds of findings that are errors; all others are warnings
    open(context: Context) -> Check   raises CannotCheck where it cannot be made
and, where edgeseg can fix what it finds without loss,
    fix(finding: Finding, context: Context) -> str
                                      what was done, in words; "" where nothing was
and imports nothing of another check. A check looks at frames one at a time, in several threads or on several machines
(look), and learns what it saw in the order of splits and names (frame). It keeps only small numbers of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg import plugins
from edgeseg.data.dataset import Classes
from edgeseg.data.shards import Shards
from edgeseg.errors import EdgesegError, FileError
from edgeseg.files import require_file
from edgeseg.image_header import ImageHeader, read_header
from edgeseg.images import Image, decode_image, decode_mask
from edgeseg.results.check import Finding, Group

SMALL_SIDE = 320  # pixels of the longer side, for what needs no detail


class CannotCheck(Exception):
    """Why a check is skipped, in words."""


@dataclass(frozen=True)
class Context:
    """What is checked. `images`, `masks`: of each split, in name order; of one that has `shards`, the names of what is
    in them, and no masks. `bundle`: a model of its classes. `face_model`: YuNet as ONNX. `ray`: see frame_map."""

    root: Path
    classes: Classes
    images: Mapping[str, tuple[Path, ...]]
    masks: Mapping[str, tuple[Path, ...]]
    bundle: Path | None = None
    face_model: Path | None = None
    ray: str = ""
    shards: Mapping[str, Shards] = field(default_factory=dict)

    def name(self, path: Path) -> str:
        """How results name a file."""
        return path.relative_to(self.root).as_posix()

    def mask_of(self, split: str, image: Path) -> Path:
        """The mask of an image; of shards, as their archives call it."""
        if split in self.shards:
            return image.with_name(f"{image.stem}.mask.png")
        return self.root / split / "masks" / f"{image.stem}.png"

    def read_image(self, split: str, number: int) -> bytes:
        """The content of an image file; EdgesegError where it cannot be read."""
        if split in self.shards:
            return self.shards[split].read("images", number)
        return _content(self.images[split][number], "Image")

    def read_mask(self, split: str, number: int) -> bytes | None:
        """The same of its mask; None where there is none."""
        if split in self.shards:
            return self.shards[split].read("masks", number)
        mask = self.mask_of(split, self.images[split][number])
        return _content(mask, "Mask") if mask.exists() else None


def _content(path: Path, what: str) -> bytes:
    try:
        return require_file(path, what).read_bytes()
    except OSError as error:
        raise FileError(f"{what} {path} cannot be read: {error.strerror}.", "Check its permissions.") from error


@dataclass(frozen=True)
class Sample:
    """A frame and its labels as far as they can be read.

    `name`, `mask_name`: the files, as results name them; `data`, `mask_data`: their content. `pixels` [H, W, 3] uint8
    BGR and `labels` [H, W] uint8 are None where there is none or reading raised `problem`, `labels_problem`.
    """

    split: str
    number: int
    name: str
    mask_name: str
    data: bytes
    mask_data: bytes
    header: ImageHeader | None
    pixels: Image | None
    labels: Image | None
    problem: EdgesegError | None
    labels_problem: EdgesegError | None

    @cached_property
    def small(self) -> Image:
        """The frame, its longer side at most SMALL_SIDE pixels."""
        assert self.pixels is not None
        return reduced(self.pixels)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """[256]: the pixels of each id in the labels."""
        assert self.labels is not None
        return np.bincount(self.labels.ravel(), minlength=256)

    @property
    def fits(self) -> bool:
        """Whether there are pixels and labels, and of one size."""
        return self.pixels is not None and self.labels is not None and self.pixels.shape[:2] == self.labels.shape


def reduced(frame: Image) -> Image:
    """A frame [H, W, 3] uint8, its longer side at most SMALL_SIDE pixels."""
    scale = SMALL_SIDE / max(frame.shape[:2])
    if scale >= 1:
        return frame
    size = max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def load_sample(context: Context, split: str, number: int) -> Sample:
    """Read a frame and its labels; what cannot be read is in the sample, not raised."""
    image = context.images[split][number]
    mask = context.mask_of(split, image)
    data, mask_data, pixels, labels, problem, labels_problem = b"", b"", None, None, None, None
    try:
        data = context.read_image(split, number)
        if not data:
            raise FileError(f"Image {image} is empty (0 bytes).", "Write or copy it again.")
        pixels = decode_image(data, image)
    except EdgesegError as error:
        problem = error
    try:
        stored = context.read_mask(split, number)
        if stored is not None:
            mask_data = stored
            labels = decode_mask(stored, mask, None if pixels is None else image, data)
    except EdgesegError as error:
        labels_problem = error
    return Sample(
        split, number, context.name(image), context.name(mask), data, mask_data, read_header(data), pixels, labels,
        problem, labels_problem,
    )  # fmt: skip


class Check:
    """A check that is being made; `groups`: what belongs together without being a fault, known at the end."""

    groups: tuple[Group, ...] = ()

    def look(self, sample: Sample) -> Any:
        """What there is to know of a frame: small, and possible to pickle. Changes nothing of the check, for it may be
        called anywhere and in any order."""
        return ()

    def frame(self, seen: Any) -> Iterable[Finding]:
        """What is wrong with the next frame, of which look returned `seen`: findings, if nothing else is done here."""
        findings: Iterable[Finding] = seen
        return findings

    def end(self) -> Iterable[Finding]:
        """What is wrong with all of them together."""
        return ()

    def close(self) -> None:
        """Give back what was opened."""


def names() -> list[str]:
    return plugins.names(__name__)


def get(name: str) -> ModuleType:
    return plugins.load(__name__, name)
