"""Where two labelings of the same frames disagree: a model and a human, or two humans."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgeseg.data.dataset import Classes, Dataset, open_files
from edgeseg.data.labelmap import IGNORE
from edgeseg.errors import EdgesegError, OptionError
from edgeseg.evaluation.metrics import Counts
from edgeseg.images import Image
from edgeseg.results.labeling import Disagreement, FrameAgreement

WORST = 10


class Comparison:
    """Counts frame by frame; pixels that either side ignores do not count."""

    def __init__(self, classes: Classes, first: str, second: str):
        self._classes, self._names = classes, (first, second)
        self._counts = Counts(len(classes.names), IGNORE)
        self._frames: list[FrameAgreement] = []

    def add(self, frame: str, first: Image, second: Image) -> None:
        """Two class maps [H, W] uint8 of the same size, IGNORE where nobody knows."""
        known = (first != IGNORE) & (second != IGNORE)
        self._counts.add(np.where(known, first, IGNORE).astype(np.uint8), np.where(known, second, 0).astype(np.uint8))
        share = float((first[known] == second[known]).mean()) if known.any() else 1.0
        self._frames.append(FrameAgreement(frame, round(share, 6), self._change(first[known], second[known])))

    def _change(self, first: Image, second: Image) -> str:
        differ = first != second
        if not differ.any():
            return ""
        pairs = first[differ].astype(int) * 256 + second[differ]
        before, after = divmod(int(np.bincount(pairs).argmax()), 256)
        return f"{self._classes.names[before]} -> {self._classes.names[after]}"

    def result(
        self, only_first: Iterable[str] = (), only_second: Iterable[str] = (), problems: Iterable[str] = ()
    ) -> Disagreement:
        metrics = self._counts.metrics(self._classes.names) if self._frames else None
        ordered = sorted(self._frames, key=lambda frame: (frame.agreement, frame.frame))
        return Disagreement(
            first=self._names[0],
            second=self._names[1],
            frames=len(self._frames),
            agreement=round(metrics.pixel_accuracy, 6) if metrics else None,
            miou=metrics.miou if metrics else None,
            iou={name: row.iou for name, row in metrics.per_class.items()} if metrics else {},
            worst=tuple(frame for frame in ordered[:WORST] if frame.agreement < 1),
            only_first=tuple(only_first),
            only_second=tuple(only_second),
            problems=tuple(problems),
        )


def compare(first: Path, second: Path, names: tuple[str, str] = ("", "")) -> Disagreement:
    """Two datasets with the same frames, by their names. OptionError where their classes differ or no frame is in both;
    a frame whose sizes differ or that cannot be read is left out, and named in `problems`."""
    ours, theirs = _frames(first), _frames(second)
    classes = _classes(first)
    if classes.names != _classes(second).names:
        raise OptionError(
            f"{first} and {second} have other classes: {', '.join(classes.names)[:100]} and "
            f"{', '.join(_classes(second).names)[:100]}.",
            "Only labels of the same classes can be compared; edgeseg data import --map makes them so.",
        )
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        raise OptionError(f"{first} and {second} have no frame in common.", "Frames are matched by their file names.")
    comparison = Comparison(classes, names[0] or first.name, names[1] or second.name)
    problems = []
    for name in both:
        try:
            a, b = (_mask(*part) for part in (ours[name], theirs[name]))
        except EdgesegError as error:
            problems.append(error.what)
            continue
        if a.shape != b.shape:
            problems.append(f"{name} is {a.shape[1]}x{a.shape[0]} in one and {b.shape[1]}x{b.shape[0]} in the other.")
            continue
        comparison.add(name, a, b)
    return comparison.result(sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys()), problems)


def _classes(root: Path) -> Classes:
    return open_files(root, "label compare")[0].classes


def _frames(root: Path) -> dict[str, tuple[Dataset, int]]:
    return {image.stem: (part, i) for part in open_files(root, "label compare") for i, image in enumerate(part.images)}


def _mask(part: Dataset, index: int) -> Image:
    """[H, W] uint8 with IGNORE for what does not count."""
    mask, ignore = part.mask(index), part.classes.ignore_index
    return mask if ignore in (None, IGNORE) else np.where(mask == ignore, np.uint8(IGNORE), mask)
