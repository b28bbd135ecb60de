"""Which frames stand for all: by light, by what the picture looks like, by classes, by what a model makes of it.

Every frame becomes a point; greedy k-center (Gonzalez 1985; as core set Sener & Savarese 2018) takes the frame that is
farthest from all taken so far, so that none is left far from a taken one. The radius of that is at most twice the
smallest possible.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.calibration import leaks
from edgeseg.evaluation import parity
from edgeseg.files import require_file
from edgeseg.images import Image, read_image, resize
from edgeseg.spec import Spec

Floats = NDArray[np.float64]
Progress = Callable[[int, int], None]
SMALL, TINY, BINS = 64, 8, 8
BLOCK = 64  # frames in memory at a time for a model
DRAWS = 20  # random sets that the chosen one is compared with


@dataclass(frozen=True)
class Views:
    """What is kept of N different frames: files, hashes, sizes (width, height), prints, mean brightness in 0..255 and
    the groups of numbers [N, d] in which they are compared."""

    files: tuple[Path, ...]
    hashes: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    prints: tuple[leaks.Print, ...]
    brightness: Floats
    groups: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.files)

    def take(self, indices: Sequence[int]) -> Views:
        """Only these frames, in this order."""
        rows = list(indices)
        return Views(
            tuple(self.files[i] for i in rows),
            tuple(self.hashes[i] for i in rows),
            tuple(self.sizes[i] for i in rows),
            tuple(self.prints[i] for i in rows),
            self.brightness[rows],
            {name: group[rows] for name, group in self.groups.items()},
        )


def look(
    files: Sequence[Path], shares: Callable[[int], Floats] | None = None, progress: Progress = lambda i, n: None
) -> Views:
    """Read every file once; of equal files the first counts. `shares(i)`: [C], the share of each class in frame i.

    Raises FileError for a file that is no picture.
    """
    kept: dict[str, tuple[Any, ...]] = {}
    for i, file in enumerate(files):
        digest = hashlib.sha256(require_file(file, "Image").read_bytes()).hexdigest()
        if digest not in kept:
            frame = read_image(file)
            small = cv2.resize(frame, (SMALL, SMALL), interpolation=cv2.INTER_AREA)
            numbers = [light(small), picture(small), *([shares(i)] if shares else [])]
            kept[digest] = file, frame.shape[1::-1], leaks.take(frame), small.mean(), *numbers
        progress(i + 1, len(files))
    paths, sizes, prints, brightness, *parts = zip(*kept.values())
    names = ("light", "picture", "classes")
    groups = {name: np.array(part, float) for name, part in zip(names, parts)}
    return Views(paths, tuple(kept), sizes, prints, np.array(brightness, float), groups)


def light(small: NDArray[Any]) -> Floats:
    """Shares of BINS brightnesses and of BINS saturations, and the contrast, of [h, w, 3] uint8 BGR."""
    value = small.mean(2)
    low, high = small.min(2).astype(float), small.max(2).astype(float)
    saturation = (high - low) / np.maximum(1, high)
    bins = [np.histogram(v, BINS, (0, top))[0] / v.size for v, top in ((value, 256), (saturation, 1.0))]
    return np.concatenate([*bins, [value.std() / 128]])


def picture(small: NDArray[Any]) -> Floats:
    """The frame at TINY x TINY pixels, 0..1."""
    return np.asarray(cv2.resize(small, (TINY, TINY), interpolation=cv2.INTER_AREA), float).ravel() / 255


def class_shares(classmap: Image, classes: int) -> Floats:
    """The share [C] of each class in the pixels of a class map; ignored ones are no class's."""
    return np.bincount(classmap.ravel(), minlength=256)[:classes] / classmap.size


def seen_by(
    model: Path, spec: Spec, output: str, files: Sequence[Path], progress: Progress = lambda i, n: None
) -> dict[str, Floats]:
    """What a float model makes of the frames: `predicted`, the share of each class, and, where it gives logits,
    `logits`: their means in the four quarters of the frame."""
    predicted, logits = [], []
    for start in range(0, len(files), BLOCK):
        frames = [resize(read_image(file), spec.height, spec.width) for file in files[start : start + BLOCK]]
        for out in parity.outputs(model, spec, frames, output)[0]:
            predicted.append(class_shares(parity.class_map(out, spec), len(spec.classes)))
            if parity.has_logits(out, spec):
                halves = [part for half in np.array_split(out[0], 2, 1) for part in np.array_split(half, 2, 2)]
                logits.append(np.concatenate([part.mean((1, 2)) for part in halves]))
            progress(len(predicted), len(files))
    return {"predicted": np.array(predicted), **({"logits": np.array(logits, float)} if logits else {})}


def points(groups: dict[str, Floats]) -> Floats:
    """[N, D] with a mean squared distance of 1 from the mean, to which every group that varies adds the same.

    Shares of classes are compared by their roots (Hellinger), each class in units of its own deviation: a rare one
    counts as much as the road.
    """
    made = []
    for name, group in groups.items():
        if name in ("classes", "predicted"):
            group = np.sqrt(group)
            group = group / np.maximum(1e-9, group.std(0))
        group = group - group.mean(0)
        scale = float(np.sqrt((group**2).sum(1).mean()))
        if scale > 1e-9:
            made.append(group / scale)
    return np.concatenate(made, 1) / np.sqrt(len(made)) if made else np.zeros((len(next(iter(groups.values()))), 1))


def spread(where: Floats, count: int, seed: int) -> list[int]:
    """`count` of the points [N, D], at most all: first a random one, then always the farthest from those taken."""
    taken = [int(np.random.default_rng(seed).integers(len(where)))]
    nearest = distances(where, taken)
    while len(taken) < min(count, len(where)):
        nearest[taken[-1]] = -1  # never again, even where all points are equal
        taken.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, distances(where, taken[-1:]))
    return taken


def distances(where: Floats, taken: Sequence[int]) -> Floats:
    """[N]: how far each point is from the nearest of those taken."""
    nearest = np.full(len(where), np.inf)
    for i in taken:
        nearest = np.minimum(nearest, np.sqrt(((where - where[i]) ** 2).sum(1)))
    return nearest


def summary(views: Views, taken: Sequence[int], classes: tuple[str, ...]) -> dict[str, Any]:
    """What the frames taken cover of all: JSON friendly. `radius` and `radius_random`, the mean of DRAWS random sets of
    the same size: how far the farthest frame is from one taken (1 is the usual distance from the mean)."""
    where = points(views.groups)
    random = np.random.default_rng(0)
    draws = [random.choice(len(views), len(taken), replace=False) for _ in range(DRAWS)]
    rows = list(taken)
    found: dict[str, Any] = {
        "compared_by": list(views.groups),
        "radius": round(float(distances(where, rows).max()), 3),
        "radius_random": round(float(np.mean([distances(where, draw.tolist()).max() for draw in draws])), 3),
        "brightness": _span(views.brightness[rows]),
        "brightness_of_all": _span(views.brightness),
    }
    shares = views.groups.get("classes", views.groups.get("predicted"))
    if shares is not None:
        found["classes"] = {
            name: {
                "share": round(float(shares[rows, c].mean()), 5),
                "share_of_all": round(float(shares[:, c].mean()), 5),
                "frames": int((shares[rows, c] > 0).sum()),
                "frames_of_all": int((shares[:, c] > 0).sum()),
            }
            for c, name in enumerate(classes)
        }
    return found


def sheet(files: Sequence[Path], width: int = 160, columns: int = 8) -> Image:
    """The frames as a contact sheet, [H, W, 3] uint8 BGR, in the order given; a frame keeps its shape."""
    rows = []
    height = round(width * 0.75)
    for start in range(0, len(files), columns):
        row = np.full((height + 4, columns * (width + 4), 3), 32, np.uint8)
        for place, file in enumerate(files[start : start + columns]):
            frame = read_image(file)
            scale = min(width / frame.shape[1], height / frame.shape[0])
            w, h = (max(1, round(side * scale)) for side in frame.shape[1::-1])
            left = place * (width + 4) + 2
            row[2 : 2 + h, left : left + w] = cv2.resize(frame, (w, h), interpolation=cv2.INTER_AREA)
        rows.append(row)
    return np.vstack(rows)


def _span(values: Floats) -> list[float]:
    return [round(float(values.min()), 1), round(float(values.max()), 1)]
