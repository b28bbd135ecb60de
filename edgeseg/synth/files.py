"""Rendered streets as a dataset of images and masks, and as a video."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import cv2

from edgeseg.data.dataset import SPLITS
from edgeseg.errors import FileError, OptionError
from edgeseg.files import write_bytes
from edgeseg.images import Image, write_image
from edgeseg.synth.street import CLASSES, FPS, Street, check_scene, clip

SPLIT_SPAN = 1_000_000  # scene seeds of one split


def scene_seeds(seed: int, split: str, count: int) -> range:
    """The street of every frame of a split; no two splits, and no two dataset seeds, share one."""
    start = (seed * len(SPLITS) + SPLITS.index(split)) * SPLIT_SPAN
    return range(start, start + count)


def write_dataset(
    root: Path,
    *,
    train: int = 240,
    val: int = 40,
    test: int = 60,
    seed: int = 1,
    height: int = 224,
    width: int = 384,
    night: float = 0.0,
    fog: float = 0.0,
    instances: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a dataset that `Dataset.open` reads, one street a frame; `progress(done, total)` is called after each.
    `instances`: also which car and pedestrian each pixel shows.

    All or nothing: it is written under a temporary name and renamed at the end. FileError where `root` is not empty.
    """
    root = Path(root)
    counts = {"train": train, "val": val, "test": test}
    check_scene(seed, height, width, night, fog)
    for split, count in counts.items():
        if not 1 <= count <= SPLIT_SPAN:
            raise OptionError(f"{split} is {count} frames.", f"Expected 1 to {SPLIT_SPAN}.")
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise FileError(f"{root} already exists.", "Choose a new folder, or delete this one first.")
    temporary = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    try:
        done = 0
        for split, count in counts.items():
            for number, scene in enumerate(scene_seeds(seed, split, count)):
                street, t = Street(scene, height, width, night, fog), scene * 37 % 1000
                if instances:
                    image, mask, objects = street.frame_with_objects(t)
                    write_image(temporary / split / "instances" / f"{number:05d}.png", objects)  # type: ignore[arg-type]
                else:
                    image, mask = street.frame(t)
                write_image(temporary / split / "images" / f"{number:05d}.png", image)
                write_image(temporary / split / "masks" / f"{number:05d}.png", mask)
                done += 1
                if progress:
                    progress(done, sum(counts.values()))
        write_bytes(temporary / "classes.txt", CLASSES.text().encode())
        try:
            temporary.replace(root)
        except OSError as error:
            raise FileError(f"Cannot write {root}: {error.strerror}.", "Choose a folder you may write.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_clip(path: Path, frames: int, height: int, width: int, night: float, fog: float) -> None:
    """OptionError for what `write_clip` cannot make."""
    check_scene(0, height, width, night, fog)
    if frames < 1:
        raise OptionError(f"A clip of {frames} frames.", "Expected at least 1.")
    if height % 2 or width % 2:
        raise OptionError(f"A clip of {width}x{height} pixels.", "MP4 needs even sizes.")
    if path.suffix.lower() != ".mp4":
        raise OptionError(f"Clip {path} ends in {path.suffix!r}.", "Expected a name ending in .mp4.")


class ClipWriter(Protocol):
    """A video file that is being written."""

    def write(self, image: Image, seconds: float) -> None: ...
    def close(self) -> None: ...


class OpenCvClip:
    """MPEG-4 through OpenCV, which browsers do not play."""

    def __init__(self, path: Path, width: int, height: int, fps: float):
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
        if not self._writer.isOpened():
            raise FileError(f"Cannot write {path}.", "Choose a folder you may write.")

    def write(self, image: Image, seconds: float) -> None:
        self._writer.write(image)

    def close(self) -> None:
        self._writer.release()


def write_clip(
    path: Path,
    *,
    seed: int = 7,
    frames: int = 250,
    height: int = 720,
    width: int = 1280,
    fps: int = FPS,
    night: float = 0.0,
    fog: float = 0.0,
    progress: Callable[[int, int], None] | None = None,
    open_writer: Callable[[Path, int, int, float], ClipWriter] = OpenCvClip,
) -> None:
    """Write a street as an MP4 of `frames` frames; under a temporary name, renamed at the end."""
    path = Path(path)
    check_clip(path, frames, height, width, night, fog)
    images = clip(seed, frames, height, width, night, fog)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = open_writer(temporary, width, height, fps)
        for done, (image, _) in enumerate(images, 1):
            writer.write(image, (done - 1) / fps)
            if progress:
                progress(done, frames)
        writer.close()
        temporary.replace(path)
    except OSError as error:
        raise FileError(f"Cannot write {path}: {error.strerror}.", "Choose a folder you may write.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
