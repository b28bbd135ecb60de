"""Label errors that `edgeseg data check` and cleanlab find, on the same planted errors and the same probabilities.

    pip install cleanlab
    python benchmarks/label_errors.py DATASET --bundle BUNDLE --out OUT

One region of every second test frame gets another class, as in data_check.py. Both are counted in pixels of the
network's input and in regions: a region hits when it holds half of the planted pixels, or is planted to two fifths.
cleanlab has no ignored pixels: they get the class that the model sees.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from data_check import any_region, copy_split, png, rng
from numpy.typing import NDArray

from edgeseg.data.checks.label_errors import SMALLEST, THICKNESS, predict, softmax, suspicious
from edgeseg.data.dataset import read_classes
from edgeseg.fit import OUTSIDE, fit_labels
from edgeseg.images import read_image, read_mask
from edgeseg.runtime import PROXY, open_segmenter

SCORES = (0.4, 0.6, 0.8)
BATCH = 200_000  # pixels
Masks = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Frames:
    """Of N frames, at the network's size: `labels`, `clean`, `predicted` [N, H, W] uint8, `chances` [N, C, H, W],
    `known` [N, H, W]: where there is a label."""

    labels: NDArray[np.uint8]
    clean: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    chances: NDArray[np.float32]
    known: Masks

    @property
    def wrong(self) -> Masks:
        return np.asarray(self.known & (self.labels != self.clean))


def plant(source: Path, out: Path) -> None:
    copy_split(source, out, "test")
    classes = len(read_classes(out / "classes.txt").names)
    for mask in sorted((out / "test" / "masks").iterdir())[::2]:
        stored = read_mask(mask)
        if (region := any_region(stored, classes)) is not None:
            stored[region] = rng.choice(sorted(set(range(classes)) - {int(stored[region][0])}))
            mask.write_bytes(png(stored))


def read(source: Path, planted: Path, bundle: Path) -> Frames:
    classes = read_classes(source / "classes.txt")
    ignore = OUTSIDE if classes.ignore_index is None else classes.ignore_index
    rows = []
    with open_segmenter(bundle, backend=PROXY) as segmenter:
        size = segmenter.spec.width, segmenter.spec.height
        for image in sorted((source / "test" / "images").iterdir()):
            predicted, logits = predict(segmenter, read_image(image))
            chances = np.stack([cv2.resize(c, size, interpolation=cv2.INTER_LINEAR) for c in softmax(logits)])
            labels, clean = (
                fit_labels(read_mask(root / "test" / "masks" / f"{image.stem}.png"), segmenter.spec, ignore)
                for root in (planted, source)
            )
            known = (labels < len(classes.names)) & (labels != ignore)
            rows.append((labels, clean, predicted, chances / chances.sum(0), known))
    return Frames(*(np.stack(column) for column in zip(*rows)))


def by_edgeseg(frames: Frames) -> dict[str, Masks]:
    """Of each least score, the pixels of the regions that are reported."""
    flagged = {f"edgeseg, score {score}": np.zeros_like(frames.known) for score in SCORES}
    for i, (labels, known) in enumerate(zip(frames.labels, frames.known)):
        for region in suspicious(labels, known, frames.predicted[i], frames.chances[i]):
            x, y, w, h = region.box
            box = np.s_[i, y : y + h, x : x + w]
            here = frames.known[box] & (frames.labels[box] == region.label) & (frames.predicted[box] != region.label)
            for score in (s for s in SCORES if region.score >= s):
                flagged[f"edgeseg, score {score}"][box] |= here
    return flagged


def by_cleanlab(frames: Frames) -> Masks:
    from cleanlab.segmentation.filter import find_label_issues

    labels = np.where(frames.known, frames.labels, frames.chances.argmax(1)).astype(np.int64)
    found = find_label_issues(labels, frames.chances, downsample=1, n_jobs=1, verbose=False, batch_size=BATCH)
    return np.asarray(found & frames.known)


def regions(flagged: Masks, labels: NDArray[np.uint8]) -> Iterator[Masks]:
    """Connected parts of one label that are no thinner and no smaller than those edgeseg reports."""
    size = max(3, round(labels.shape[0] * THICKNESS))
    opened = cv2.morphologyEx(flagged.astype(np.uint8), cv2.MORPH_OPEN, np.ones((size, size), np.uint8))
    for class_id in np.unique(labels[opened > 0]):
        here = (opened > 0) & (labels == class_id)
        number, parts, stats, _ = cv2.connectedComponentsWithStats(here.astype(np.uint8), connectivity=4)
        yield from (parts == i for i in range(1, number) if stats[i, cv2.CC_STAT_AREA] >= SMALLEST * labels.size)


def report(name: str, flagged: Masks, frames: Frames) -> None:
    wrong, found, hits, frames_hit = frames.wrong, 0, 0, 0
    for i, labels in enumerate(frames.labels):
        own = list(regions(flagged[i], labels))
        both = [int((region & wrong[i]).sum()) for region in own]
        good = [b >= 0.5 * wrong[i].sum() or b > 0.4 * r.sum() for b, r in zip(both, own) if b]
        found, hits, frames_hit = found + len(own), hits + sum(good), frames_hit + any(good)
    pixels = int((flagged & wrong).sum())
    recall, precision = pixels / wrong.sum(), pixels / max(1, flagged.sum())
    print(
        f"{name:20} pixels: recall {recall:.3f}, precision {precision:.3f}; regions: "
        f"recall {frames_hit / wrong.any((1, 2)).sum():.3f}, precision {hits / max(1, found):.3f} of {found}",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--bundle", type=Path, required=True, help="a model of the dataset's classes")
    parser.add_argument("--out", type=Path, default=Path("planted"), help="the folder to write")
    given = parser.parse_args()
    plant(given.dataset, given.out)
    seen = read(given.dataset, given.out, given.bundle)
    right = float((seen.predicted == seen.clean)[seen.known].mean())
    print(f"{len(seen.labels)} frames, {int(seen.wrong.any((1, 2)).sum())} planted; the model is right on {right:.3f}")
    for title, mask in by_edgeseg(seen).items():
        report(title, mask, seen)
    report("cleanlab", by_cleanlab(seen), seen)
