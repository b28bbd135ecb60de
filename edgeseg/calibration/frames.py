"""CalibrationSet: a chosen, hashed set of frames that stand for what the camera will see."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.bundle import CalibrationDigest
from edgeseg.errors import FileError, OptionError
from edgeseg.files import require_file, write_bytes
from edgeseg.images import Image, list_images, read_image, resize
from edgeseg.spec import Spec

MINIMUM = 8


@dataclass(frozen=True)
class CalibrationSet:
    """`frames` in order with the sha256 of each file; `digest` names the set."""

    frames: tuple[Path, ...]
    hashes: tuple[str, ...]

    @property
    def digest(self) -> str:
        return hashlib.sha256("".join(self.hashes).encode()).hexdigest()

    @classmethod
    def choose(cls, source: Path, count: int, seed: int = 0) -> CalibrationSet:
        """Up to `count` different frames of a folder of images or a dataset (its train split), by chance and without
        reading a picture; or those of a manifest (selection.py chooses with care and writes one)."""
        if source.is_file():
            return cls.load(source)
        if (source / "classes.txt").is_file():
            source = source / "train" / "images"
        found = list_images(source)
        order = np.random.default_rng(seed).permutation(len(found))
        chosen: dict[str, Path] = {}
        for i in order:
            if len(chosen) == count:
                break
            chosen.setdefault(hashlib.sha256(found[i].read_bytes()).hexdigest(), found[i])
        enough(source, len(chosen), count)
        return cls(tuple(chosen.values()), tuple(chosen))

    @classmethod
    def load(cls, path: Path) -> CalibrationSet:
        """Read a manifest; FileError when it is not one, names too few frames, or one is missing or has changed."""
        try:
            data = json.loads(require_file(path, "Calibration manifest").read_text())
            entries = [(path.parent / entry["file"], str(entry["sha256"])) for entry in data["frames"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FileError(
                f"Calibration manifest {path} cannot be read: {error}.", "Make it again: edgeseg calibrate"
            ) from error
        if len(entries) < MINIMUM:
            raise FileError(
                f"Calibration manifest {path} names {len(entries)} frames.", f"Expected at least {MINIMUM}."
            )
        for frame, digest in entries:
            if hashlib.sha256(require_file(frame, "Calibration frame").read_bytes()).hexdigest() != digest:
                raise FileError(f"Calibration frame {frame} has changed since {path} was made.", "Make it again.")
        return cls(tuple(frame for frame, _ in entries), tuple(digest for _, digest in entries))

    def save(self, path: Path, about: dict[str, Any] | None = None) -> None:
        """Write a manifest with paths relative to it. `about`: how the frames were chosen, for people to read."""
        home = path.parent.resolve()
        names = [Path(os.path.relpath(frame.resolve(), home)).as_posix() for frame in self.frames]
        rows = [{"file": name, "sha256": digest} for name, digest in zip(names, self.hashes)]
        document = {"digest": self.digest, **(about or {}), "frames": rows}
        write_bytes(path, (json.dumps(document, indent=1) + "\n").encode())

    def images(self, spec: Spec) -> Iterator[Image]:
        """Each frame as the engine gets it: [H, W, 3] uint8 BGR at the Spec's size."""
        for path in self.frames:
            yield resize(read_image(path), spec.height, spec.width)

    @property
    def identity(self) -> CalibrationDigest:
        """What a bundle says about the frames it was calibrated with."""
        return CalibrationDigest(len(self.frames), self.digest)


def enough(source: Path, found: int, count: int = MINIMUM) -> None:
    """OptionError where `source` holds too few different frames to calibrate with."""
    if found < min(MINIMUM, count) or not found:
        raise OptionError(
            f"{source} holds {found} different frames for calibration.",
            f"Give at least {MINIMUM}; 32 to 300 of what the camera will see work well.",
        )
