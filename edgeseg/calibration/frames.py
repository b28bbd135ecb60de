"""CalibrationSet: a chosen, hashed set of frames that represent what the camera will see."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgeseg.bundle import CalibrationDigest
from edgeseg.data.dataset import Dataset
from edgeseg.data.shards import is_sharded
from edgeseg.errors import FileError, OptionError
from edgeseg.files import require_file, write_bytes
from edgeseg.fit import fit_frame
from edgeseg.images import Image, list_images, read_image
from edgeseg.records import check_schema, convert, parse_json
from edgeseg.results.calibration import SelectionReport
from edgeseg.spec import Spec

SCHEMA = 1  # of the manifest
MIN_FRAMES = 8
CHOOSE_AGAIN = "Make it again: edgeseg calibrate"


@dataclass(frozen=True)
class ManifestFrame:
    """`file`: relative to the manifest."""

    file: str
    sha256: str


@dataclass(frozen=True)
class CalibrationManifest:
    """What CalibrationSet reads of its file; the SelectionReport beside it is for people."""

    frames: tuple[ManifestFrame, ...]


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
        """Up to `count` different frames, chosen at random, of a folder of images or of a dataset's train split; or
        those of a manifest. selection.py chooses by content and writes such a manifest."""
        if source.is_file():
            return cls.load(source)
        shards = Dataset.open(source, "train") if is_sharded(source / "train") else None
        if (source / "classes.txt").is_file() and not shards:
            source = source / "train" / "images"
        files = shards.images if shards else list_images(source)
        order = np.random.default_rng(seed).permutation(len(files))
        chosen: dict[str, Path] = {}
        for i in order:
            if len(chosen) == count:
                break
            path = shards.image_file(i) if shards else files[i]
            chosen.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
        require_frames(source, len(chosen), count)
        return cls(tuple(chosen.values()), tuple(chosen))

    @classmethod
    def load(cls, path: Path) -> CalibrationSet:
        """Read a manifest. FileError if it is not one, names too few frames, or a frame is missing or has changed;
        OptionError for a newer schema."""
        entries = _read_manifest(path).frames
        if len(entries) < MIN_FRAMES:
            raise FileError(
                f"Calibration manifest {path} names {len(entries)} frames.",
                f"Expected at least {MIN_FRAMES}. {CHOOSE_AGAIN}",
            )
        frames = tuple(path.parent / entry.file for entry in entries)
        for frame, entry in zip(frames, entries):
            if hashlib.sha256(require_file(frame, "Calibration frame").read_bytes()).hexdigest() != entry.sha256:
                raise FileError(
                    f"Calibration frame {frame} has changed since {path} was made.",
                    f"Its sha256 should be {entry.sha256[:16]}... Restore the file, or choose again: edgeseg calibrate",
                )
        return cls(frames, tuple(entry.sha256 for entry in entries))

    def save(self, path: Path, report: SelectionReport | None = None) -> None:
        """Write a manifest with paths relative to it. `report`: how the frames were chosen, for people to read."""
        folder = path.parent.resolve()
        names = [Path(os.path.relpath(frame.resolve(), folder)).as_posix() for frame in self.frames]
        document: dict[str, object] = {"schema": SCHEMA, "digest": self.digest}
        document |= {key: value for key, value in asdict(report).items() if value is not None} if report else {}
        document["frames"] = [{"file": name, "sha256": digest} for name, digest in zip(names, self.hashes)]
        write_bytes(path, (json.dumps(document, indent=1) + "\n").encode())

    def images(self, spec: Spec) -> Iterator[Image]:
        """Each frame as the engine gets it: [H, W, 3] uint8 BGR at the Spec's size."""
        for path in self.frames:
            yield fit_frame(read_image(path), spec)

    @property
    def identity(self) -> CalibrationDigest:
        """What a bundle says about the frames it was calibrated with."""
        return CalibrationDigest(len(self.frames), self.digest)


def require_frames(source: Path, count: int, requested: int = MIN_FRAMES) -> None:
    """OptionError if `source` holds only `count` different frames, too few to calibrate with."""
    if count < min(MIN_FRAMES, requested) or not count:
        raise OptionError(
            f"{source} holds {count} different frames for calibration.",
            f"Give at least {MIN_FRAMES}; 32 to 300 of what the camera will see work well.",
        )


def _read_manifest(path: Path) -> CalibrationManifest:
    try:
        document = parse_json(require_file(path, "Calibration manifest").read_bytes())
    except (ValueError, RecursionError) as error:
        raise FileError(f"Calibration manifest {path} cannot be read: {error}.", CHOOSE_AGAIN) from error
    check_schema(document, SCHEMA, f"Calibration manifest {path}")
    return convert(document, CalibrationManifest, f"Calibration manifest {path} cannot be read", CHOOSE_AGAIN)
