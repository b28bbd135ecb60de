"""Choosing what to label: frames of several collections by uncertainty times diversity, or at random.

Greedy: first the frame of most worth, then again and again the one with the highest product of its worth and its
distance to what was chosen already. Without the distance, the most uncertain frames are often many of one moment
(Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach", ICLR 2018, on diversity
alone).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeseg.data.dataset import SPLITS, read_classes
from edgeseg.errors import EdgesegError
from edgeseg.images import IMAGE_SUFFIXES, read_image, read_mask
from edgeseg.labeling.selecting import reasons
from edgeseg.monitoring.random_draw import RANDOM
from edgeseg.monitoring.worth import Features, describe, distances
from edgeseg.result import Frame, Result

UNKNOWN = 1.0  # worth of a frame of which nothing is recorded


@dataclass(frozen=True)
class Candidate:
    """A frame that may be labeled. `mask`: the model's class map of it, with `ignore` for pixels that never count.
    `why`: see monitoring/worth.py."""

    image: Path
    mask: Path
    why: dict[str, float]
    ignore: int | None = None

    @property
    def worth(self) -> float:
        return sum(self.why.values()) or UNKNOWN


def candidates(collections: Iterable[Path], taken: Collection[Path] = ()) -> list[Candidate]:
    """The frames of folders that `edgeseg collect` wrote, in the order of folders and names, but those of `taken`, and
    those that were drawn at random: what a bundle is judged by, it must not be trained with.

    A frame that is removed meanwhile, by the budget of `edgeseg collect`, is left out, and a folder that is not there.
    """
    found = []
    for root in collections:
        if not (root / "classes.txt").is_file():
            continue
        why, ignore = reasons(root), read_classes(root / "classes.txt").ignore_index
        for split in SPLITS:
            for image in _images(root / split / "images"):
                mask = root / split / "masks" / f"{image.stem}.png"
                drawn = RANDOM in why.get(image.stem, {})
                if image.resolve() not in taken and mask.is_file() and not drawn:
                    found.append(Candidate(image, mask, why.get(image.stem, {}), ignore))
    return found


def choose(found: list[Candidate], count: int, classes: int, how: str, seed: int) -> list[Candidate]:
    """`count` of the frames, or all that can be read. `how`: "uncertain" or "random"."""
    if how == "random":
        order = np.random.default_rng(seed).permutation(len(found))
        return [found[i] for i in order[:count]]
    readable: list[Candidate] = []
    rows: list[Features] = []
    for candidate in found:
        with suppress(EdgesegError, OSError):  # removed meanwhile, or damaged
            rows.append(_features(candidate, classes))
            readable.append(candidate)
    if not readable:
        return []
    features, worth = np.stack(rows), np.array([candidate.worth for candidate in readable])
    place = int(worth.argmax())
    chosen, nearest = [place], distances(features, features[place])
    while len(chosen) < min(count, len(readable)):
        value = worth * nearest
        value[chosen] = -1
        place = int(value.argmax())
        chosen.append(place)
        nearest = np.minimum(nearest, distances(features, features[place]))
    return [readable[i] for i in chosen]


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def _features(candidate: Candidate, classes: int) -> Features:
    return describe(Result(Frame(read_image(candidate.image)), read_mask(candidate.mask), {}), classes)
