"""Evaluate a bundle on the consecutive frames of a labeled video, with reuse and without, frame by frame in turns."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.data.dataset import Classes, Dataset, read_classes
from edgeseg.errors import FileError, OptionError
from edgeseg.evaluation import statistics
from edgeseg.evaluation.evaluate import Progress
from edgeseg.evaluation.flicker import Flicker
from edgeseg.evaluation.metrics import RIGHT, TRUTH, Counts, Table
from edgeseg.fit import fit_labels, unfit
from edgeseg.images import Image
from edgeseg.mask import agreement
from edgeseg.motion import h264
from edgeseg.result import Frame
from edgeseg.results.clip import ClipFrame, ClipResult, DistanceScores
from edgeseg.reuse.policy import Policy
from edgeseg.reuse.segmenter import ReusingSegmenter
from edgeseg.reuse.track import Tracker
from edgeseg.segmenter import Segmenter
from edgeseg.spec import Spec

log = logging.getLogger(__name__)
FPS = 30  # only the coder's rate control would look at it, and CRF has none
KEY_FRAME_EVERY = 30
CODECS = ("h264", "none")
IGNORED = 255


def open_clip(folder: Path, spec: Spec) -> Dataset:
    """DIR/images in the order of their names, each with DIR/masks/NAME.png. FileError for anything that is missing.

    Classes are those of DIR/classes.txt or the one beside DIR; without, the bundle's, and 255 is ignored.
    """
    folder = folder.resolve()
    if not (folder / "images").is_dir() or not (folder / "masks").is_dir():
        raise FileError(
            f"Clip {folder} has no images and masks.",
            "Expected DIR/images and DIR/masks: the frames of a video in order, and a mask for each.",
        )
    lists = [path for path in (folder / "classes.txt", folder.parent / "classes.txt") if path.is_file()]
    classes = read_classes(lists[0]) if lists else Classes(spec.classes, spec.palette, IGNORED)
    if classes.names != spec.classes:
        raise OptionError(
            f"The model's classes are {', '.join(spec.classes)}; the clip's {', '.join(classes.names)}.",
            "Evaluate on a clip with the same class list in the same order.",
        )
    clip = Dataset.of_split(folder.parent, folder.name, classes)
    if len(clip) < 2:
        raise FileError(f"Clip {folder} has {len(clip)} images.", "Expected the frames of a video, two at least.")
    return clip


class ClipFrames:
    """The clip's frames, as often as they are iterated over; `motion`: where theirs comes from.

    Coded as H.264, as a camera sends them, where that can be done (once); else as they are. OptionError for frames of
    several sizes.
    """

    def __init__(self, clip: Dataset, codec: str = CODECS[0]):
        self._clip = clip
        self._coded = (
            h264.encode(self._pictures(), FPS, KEY_FRAME_EVERY) if codec != "none" and self._may_code() else None
        )
        self.motion = "optical flow" if self._coded is None else "H.264 motion vectors"

    def __iter__(self) -> Iterator[Frame]:
        if self._coded is None:
            return (Frame(self._clip[i][0], i) for i in range(len(self._clip)))
        return (Frame(image, i, motion=(m,)) for i, (image, m) in enumerate(h264.decode(self._coded)))

    def _may_code(self) -> bool:
        height, width = self._clip[0][0].shape[:2]
        even = height % 2 == 0 and width % 2 == 0
        if even and h264.available():
            return True
        reason = "'edgeseg[camera]' is not installed" if even else "their size is odd"
        log.warning("the frames are taken as they are, not coded as H.264: %s", reason)
        return False

    def _pictures(self) -> Iterator[Image]:
        first = self._clip[0][0].shape
        for i, path in enumerate(self._clip.images):
            image = self._clip[i][0]
            if image.shape != first:
                raise OptionError(
                    f"{path} has another size than {self._clip.images[0]}.", "Expected the frames of one video."
                )
            yield image


def evaluate_clip(
    segmenter: Segmenter,
    clip: Dataset,
    frames: Iterable[Frame],
    policy: Callable[[int], Policy],
    stabilize: bool = False,
    progress: Progress | None = None,
) -> ClipResult:
    """Every frame against its label. Each goes through the whole network, too, right before, which is what the speed
    and the accuracy of reuse are compared with. `frames`: the clip's, see ClipFrames."""
    reusing = ReusingSegmenter(segmenter, policy, stabilize, ahead=0)
    names, spec = clip.classes.names, segmenter.spec
    counts = [Counts(len(names), clip.classes.ignore_index) for _ in range(2)]
    flickers = [Flicker(spec) for _ in range(2)]
    seconds = [0.0, 0.0]
    tracker, agreed = Tracker(), 0.0
    reused: list[int] = []
    for done, frame in enumerate(frames, 1):
        label = clip.mask(frame.index)
        step = tracker.follow(frame)
        tracker.restart()
        segmenter.submit(frame)
        alone = segmenter.collect()
        reusing.submit(frame)
        results = reusing.collect(), alone
        fitted = fit_labels(label, spec, IGNORED)
        for i, result in enumerate(results):
            counts[i].add(label, unfit(result.classmap, spec, *label.shape))
            flickers[i].add(result.classmap, fitted, step.field, step.grid)
            seconds[i] += sum(result.times.values())
        reused.append(results[0].reused)
        agreed += agreement(results[0].classmap, alone.classmap)
        if progress:
            progress(done, len(clip))
    tables = counts[0].tables(), counts[1].tables()
    summary = reusing.summary()
    return ClipResult(
        clip=clip.split,
        frames=len(reused),
        stabilized=stabilize,
        miou=counts[0].metrics(names).miou,
        miou_without_reuse=counts[1].metrics(names).miou,
        drop=statistics.difference(tables[1], tables[0], _points).rounded(),
        agreement=agreed / len(reused),
        keyframes=summary.share,
        fps=len(reused) / seconds[0],
        fps_without_reuse=len(reused) / seconds[1],
        flicker=flickers[0].share,
        flicker_without_reuse=flickers[1].share,
        flicker_by_class=flickers[0].by_class(),
        by_distance=_by_distance(reused, *tables),
        per_frame=tuple(map(ClipFrame, reused, _accuracy(tables[0]), _accuracy(tables[1]))),
        estimated_drop=summary.estimated_drop,
        backend=segmenter.backend,
    )


def _points(tables: NDArray[Any]) -> NDArray[np.float64]:
    return 100 * statistics.miou(tables)


def _accuracy(tables: Table) -> list[float]:
    """Of each frame, the share of labeled pixels that are right."""
    right, truth = tables[..., RIGHT].sum(1), tables[..., TRUTH].sum(1)
    return [float(value) for value in right / np.maximum(1, truth)]


def _by_distance(reused: list[int], tables: Table, without: Table) -> tuple[DistanceScores, ...]:
    distances = np.array(reused)
    return tuple(
        DistanceScores(
            int(d),
            int((distances == d).sum()),
            _number(statistics.miou(tables[distances == d].sum(0))),
            _number(statistics.miou(without[distances == d].sum(0))),
        )
        for d in np.unique(distances)
    )


def _number(value: NDArray[np.float64]) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
