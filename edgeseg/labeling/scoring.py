"""Scoring: runs a bundle on the labeled frames that its history does not know yet."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from edgeseg.data.dataset import Dataset, open_files
from edgeseg.errors import EdgesegError, FileError
from edgeseg.evaluation.evaluate import Progress, at_label_size, require_classes
from edgeseg.evaluation.metrics import confusion_of, counted
from edgeseg.files import sha256
from edgeseg.images import Image
from edgeseg.labeling import records
from edgeseg.labeling.history import History
from edgeseg.labeling.records import CollectedFrame
from edgeseg.monitoring.random_draw import RANDOM
from edgeseg.result import Frame
from edgeseg.results.accuracy import ScoredFrame
from edgeseg.results.labeling import LabelProblem
from edgeseg.segmenter import Segmenter

log = logging.getLogger(__name__)
OLDEST = datetime(2000, 1, 1, tzinfo=timezone.utc)  # a device whose clock was never set is in 1970
AHEAD = timedelta(days=1)


@dataclass(frozen=True)
class Scored:
    """`new`: images that were scored for the first time, or whose labels changed; `missing`: see AccuracyResult."""

    new: tuple[str, ...]
    replaced: int
    missing: int
    problems: tuple[LabelProblem, ...]


@dataclass(frozen=True)
class _Job:
    part: Dataset
    index: int
    image: str
    labels: str

    @property
    def path(self) -> Path:
        return self.part.images[self.index]


def score_new(segmenter: Segmenter, root: Path, history: History, progress: Progress | None = None) -> Scored:
    """Score the frames of the dataset `root` that `history` does not know with these labels.

    A frame that cannot be used is named and left out. OptionError for a dataset of other classes, FileError where
    nothing of it can be used.
    """
    collected = records.read(root)
    parts = open_files(root, "accuracy")
    require_classes(segmenter.spec, parts[0])
    scorer = _Scorer(segmenter, history, collected)
    jobs = scorer.jobs(parts)
    before = len(history.frames)
    for done, _ in enumerate(scorer.score(jobs), 1):
        if progress:
            progress(done, len(jobs))
    if not history.frames:
        first = scorer.problems[0] if scorer.problems else LabelProblem(root.name, "it has no frame")
        raise FileError(f"No frame of {root} can be used. {first.frame}: {first.what}", "Correct the labels.")
    for camera, jumps in records.backward(collected).items():
        log.warning("the clock of %s went backward %d times: days may be mixed up", camera or "the camera", jumps)
    names = {path.stem for part in parts for path in part.images}
    missing = sum(RANDOM in frame.why for name, frame in collected.items() if name not in names)
    new = len(history.frames) - before
    return Scored(tuple(scorer.new), len(scorer.new) - new, missing, tuple(scorer.problems))


class _Scorer:
    def __init__(self, segmenter: Segmenter, history: History, collected: dict[str, CollectedFrame]):
        self.new: list[str] = []
        self.problems: list[LabelProblem] = []
        self._segmenter = segmenter
        self._history = history
        self._collected = collected
        self._labels: dict[int, Image] = {}

    def jobs(self, parts: list[Dataset]) -> list[_Job]:
        """What is to be scored, each image once: under a name by which it was drawn at random, if it has one."""
        found: dict[str, _Job] = {}
        for part in parts:
            for index, path in enumerate(part.images):
                try:
                    mask = part.root / part.split / "masks" / f"{path.stem}.png"
                    job = _Job(part, index, sha256(path), sha256(mask))
                except OSError as error:
                    self._name_problem(path, f"It cannot be read: {error.strerror}. Was it removed meanwhile?")
                    continue
                if job.image not in found or self._is_random(path):
                    found[job.image] = job
        jobs = []
        for job in found.values():
            if self._history.scored(job.image, job.labels):
                self._note_random(job)
            else:
                jobs.append(job)
        return jobs

    def score(self, jobs: list[_Job]) -> Iterator[None]:
        """Run them through the network and into the history, one after another."""
        for result in self._segmenter.stream(self._frames(jobs)):
            job, label = jobs[result.frame.index], self._labels.pop(result.frame.index)
            classes = job.part.classes
            label, classmap = at_label_size(result, label, self._segmenter.spec, classes.ignore_index)
            valid = counted(label, len(classes.names), classes.ignore_index)
            confusion = confusion_of(label[valid], classmap[valid], len(classes.names))
            pixels = tuple((int(t), int(p), int(confusion[t, p])) for t, p in np.argwhere(confusion))
            self._history.add(self._scored(job, pixels))
            self.new.append(job.image)
            yield

    def _frames(self, jobs: list[_Job]) -> Iterator[Frame]:
        for number, job in enumerate(jobs):
            try:
                image, self._labels[number] = job.part[job.index]
            except (EdgesegError, OSError) as error:
                self._name_problem(job.path, error.what if isinstance(error, EdgesegError) else str(error.strerror))
                continue
            yield Frame(image, number)

    def _scored(self, job: _Job, confusion: tuple[tuple[int, int, int], ...]) -> ScoredFrame:
        """With what is recorded of it; what was drawn at random once stays so."""
        row, known = self._collected.get(job.path.stem), self._history.frames.get(job.image)
        if row is None:
            return ScoredFrame(job.path.stem, job.image, job.labels, "", None, False, (), confusion)
        time = row.time if _plausible(row.time) else None
        if time is None:
            self._name_problem(job.path, f"Its time, {row.time}, is none of a clock that is set: it is of no day.")
        why = tuple(dict.fromkeys((*row.why, *(known.why if known else ()))))
        return ScoredFrame(job.path.stem, job.image, job.labels, row.camera, time, RANDOM in why, why, confusion)

    def _note_random(self, job: _Job) -> None:
        """A frame that was scored as a chosen one, and was drawn at random, too."""
        known = self._history.frames[job.image]
        if self._is_random(job.path) and not known.random:
            self._history.add(self._scored(job, known.confusion))

    def _is_random(self, path: Path) -> bool:
        row = self._collected.get(path.stem)
        return row is not None and RANDOM in row.why

    def _name_problem(self, path: Path, what: str) -> None:
        self.problems.append(LabelProblem(path.stem, what))


def _plausible(time: float | None) -> bool:
    return time is not None and OLDEST.timestamp() <= time <= (datetime.now(timezone.utc) + AHEAD).timestamp()
