"""Frame features: the numbers in which candidate calibration frames are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.data.perceptual_hash import PerceptualHash, perceptual_hash
from edgeseg.evaluation import parity, reading
from edgeseg.files import require_file
from edgeseg.fit import fit_frame
from edgeseg.images import Image, read_image
from edgeseg.spec import Spec

Floats = NDArray[np.float64]
Progress = Callable[[int, int], None]
SMALL, THUMBNAIL = 64, 8  # pixels on a side
BINS = 8  # of each histogram
MODEL_BATCH = 64  # frames in memory at a time for a model


@dataclass(frozen=True)
class FrameFeatures:
    """N different frames: files, sha256 digests, sizes (width, height), perceptual hashes, mean brightness in 0..255
    [N], and groups of features by name, [N, d] each."""

    files: tuple[Path, ...]
    digests: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    perceptual_hashes: tuple[PerceptualHash, ...]
    brightness: Floats
    groups: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.files)

    def subset(self, indices: Sequence[int]) -> FrameFeatures:
        """Only these frames, in this order."""
        rows = list(indices)
        return FrameFeatures(
            tuple(self.files[i] for i in rows),
            tuple(self.digests[i] for i in rows),
            tuple(self.sizes[i] for i in rows),
            tuple(self.perceptual_hashes[i] for i in rows),
            self.brightness[rows],
            {name: group[rows] for name, group in self.groups.items()},
        )


def read_features(
    files: Sequence[Path],
    shares_of: Callable[[int], Floats] | None = None,
    progress: Progress = lambda done, total: None,
) -> FrameFeatures:
    """Features of every different file, each read once; of identical files the first counts.

    `shares_of(i)`: [C], the share of each class in frame i. Raises FileError for a file that is not an image.
    """
    rows: dict[str, tuple[Any, ...]] = {}
    for i, file in enumerate(files):
        digest = hashlib.sha256(require_file(file, "Image").read_bytes()).hexdigest()
        if digest not in rows:
            frame = read_image(file)
            small = cv2.resize(frame, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
            groups = [brightness_histogram(small), thumbnail(small), *([shares_of(i)] if shares_of else [])]
            rows[digest] = file, frame.shape[1::-1], perceptual_hash(frame), small.mean(), *groups
        progress(i + 1, len(files))
    paths, sizes, hashes, brightness, *columns = zip(*rows.values())
    names = ("brightness_histogram", "thumbnail", "classes")
    by_name = {name: np.array(column, float) for name, column in zip(names, columns)}
    return FrameFeatures(paths, tuple(rows), sizes, hashes, np.array(brightness, float), by_name)


def brightness_histogram(small: NDArray[Any]) -> Floats:
    """[2 BINS + 1] of [h, w, 3] uint8 BGR: histograms of brightness and of saturation (shares), and the contrast."""
    value = small.mean(2)
    low, high = small.min(2).astype(float), small.max(2).astype(float)
    saturation = (high - low) / np.maximum(1, high)
    histograms = [np.histogram(v, BINS, (0, top))[0] / v.size for v, top in ((value, 256), (saturation, 1.0))]
    return np.concatenate([*histograms, [value.std() / 128]])


def thumbnail(small: NDArray[Any]) -> Floats:
    """The frame at THUMBNAIL x THUMBNAIL pixels, flattened, 0..1."""
    side = (THUMBNAIL, THUMBNAIL)
    return np.asarray(cv2.resize(small, side, interpolation=cv2.INTER_AREA), float).ravel() / 255


def class_shares(classmap: Image, classes: int) -> Floats:
    """[C]: the share of each class among all pixels of a class map, ignored pixels included."""
    return np.bincount(classmap.ravel(), minlength=256)[:classes] / classmap.size


def prediction_features(
    model: Path, spec: Spec, output: str, files: Sequence[Path], progress: Progress = lambda done, total: None
) -> dict[str, Floats]:
    """Features from a float model's predictions: `predicted`, the share of each class [N, C], and, if the output holds
    logits, `logits`: their means in the four quarters of the frame [N, 4 C]."""
    predicted, logits = [], []
    for start in range(0, len(files), MODEL_BATCH):
        frames = [fit_frame(read_image(file), spec) for file in files[start : start + MODEL_BATCH]]
        for out in parity.outputs(model, spec, frames, output)[0]:
            predicted.append(class_shares(reading.class_map(out, spec), len(spec.classes)))
            if reading.has_logits(out, spec):
                quarters = [part for half in np.array_split(out[0], 2, 1) for part in np.array_split(half, 2, 2)]
                logits.append(np.concatenate([part.mean((1, 2)) for part in quarters]))
            progress(len(predicted), len(files))
    return {"predicted": np.array(predicted), **({"logits": np.array(logits, float)} if logits else {})}
