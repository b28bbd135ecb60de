"""Checks of a dataset: one module each, found by its file name.

A check module has
    ERRORS: tuple[str, ...]           kinds of findings that are errors; all others are warnings
    open(context: Context) -> Check   raises CannotCheck where it cannot be made
and, where edgeseg can fix what it finds without loss,
    fix(finding: Finding, context: Context) -> str
                                      what was done, in words; "" where nothing was
and imports nothing of another check. Frames come one at a time, in the order of splits and names; a check keeps only
small numbers of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from edgeseg import plugins
from edgeseg.data.dataset import Classes
from edgeseg.errors import EdgesegError, FileError
from edgeseg.image_header import ImageHeader, read_header
from edgeseg.images import Image, decode_image, read_mask
from edgeseg.results.check import Finding, Group
from edgeseg.segmenter import Segmenter

SMALL_SIDE = 320  # pixels of the longer side, for what needs no detail


class CannotCheck(Exception):
    """Why a check is skipped, in words."""


@dataclass(frozen=True)
class Context:
    """What is checked. `images`, `masks`: of each split, in name order. `segmenter`: a model of
    its classes, with no frame in flight. `face_model`: YuNet as ONNX."""

    root: Path
    classes: Classes
    images: Mapping[str, tuple[Path, ...]]
    masks: Mapping[str, tuple[Path, ...]]
    segmenter: Segmenter | None = None
    face_model: Path | None = None

    def name(self, path: Path) -> str:
        """How results name a file."""
        return path.relative_to(self.root).as_posix()


@dataclass(frozen=True)
class Sample:
    """A frame and its labels as far as they can be read. `name`, `mask_name`: the files, as results name them.
    `pixels` [H, W, 3] uint8 BGR and `labels` [H, W] uint8 are None where there is none or reading raised `problem`,
    `labels_problem`."""

    split: str
    image: Path
    mask: Path
    name: str
    mask_name: str
    data: bytes
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


def load_sample(context: Context, split: str, image: Path) -> Sample:
    """Read a frame and its labels; what cannot be read is in the sample, not raised."""
    mask = context.root / split / "masks" / f"{image.stem}.png"
    data, pixels, labels, problem, labels_problem = b"", None, None, None, None
    try:
        data = image.read_bytes()
        if not data:
            raise FileError(f"Image {image} is empty (0 bytes).", "Write or copy it again.")
        pixels = decode_image(data, image)
    except EdgesegError as error:
        problem = error
    except OSError as error:
        problem = FileError(f"Image {image} cannot be read: {error.strerror}.", "Check its permissions.")
    try:
        labels = read_mask(mask, image if pixels is not None else None) if mask.exists() else None
    except EdgesegError as error:
        labels_problem = error
    except OSError as error:
        labels_problem = FileError(f"Mask {mask} cannot be read: {error.strerror}.", "Check its permissions.")
    return Sample(
        split, image, mask, context.name(image), context.name(mask), data, read_header(data), pixels, labels, problem,
        labels_problem,
    )  # fmt: skip


class Check:
    """A check that is being made; `groups`: what belongs together without being a fault, known at the end."""

    groups: tuple[Group, ...] = ()

    def frame(self, sample: Sample) -> Iterable[Finding]:
        """What is wrong with one frame."""
        return ()

    def end(self) -> Iterable[Finding]:
        """What is wrong with all of them together."""
        return ()


def names() -> list[str]:
    return plugins.names(__name__)


def get(name: str) -> ModuleType:
    return plugins.load(__name__, name)
