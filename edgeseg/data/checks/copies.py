"""Copies of a frame within a split and across splits, and neighboring frames of one video."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeseg.data.checks import Check, Context, Sample, reduced
from edgeseg.data.copies import IDENTICAL, Index, Pair, whole
from edgeseg.data.local_features import local_features, packed
from edgeseg.data.video import Place, places
from edgeseg.images import Image, decode_image
from edgeseg.results.check import Finding, Group

ERRORS = ("leak",)
ALIKE_BITS, ALIKE_CORRELATION = 150, 0.9  # of neighboring frames; those of other scenes differ in more bits
VIDEO = 0.2  # share of alike neighbors from which on names and numbers mean a video


@dataclass(frozen=True)
class _Seen:
    split: str
    number: int
    whole: NDArray[Any]
    parts: NDArray[Any]


@dataclass(frozen=True)
class _Frames:
    """Frames by their place among those that can be read: split, and number in it."""

    context: Context
    places: list[tuple[str, int]]

    def path(self, i: int) -> Path:
        split, number = self.places[i]
        return self.context.images[split][number]

    def __call__(self, i: int) -> Image:
        """The frame, reduced."""
        return reduced(decode_image(self.context.read_image(*self.places[i]), self.path(i)))


class Copies(Check):
    def __init__(self, context: Context) -> None:
        self.context = context
        self.index = Index()
        self.frames = _Frames(context, [])

    def look(self, sample: Sample) -> _Seen | None:
        if sample.pixels is None:
            return None
        parts = packed(local_features(sample.small))
        return _Seen(sample.split, sample.number, whole(sample.data, sample.small), parts)

    def frame(self, seen: _Seen | None) -> Iterable[Finding]:
        if seen is not None:
            self.index.add(seen.whole, seen.parts)
            self.frames.places.append((seen.split, seen.number))
        return ()

    def end(self) -> Iterator[Finding]:
        splits = [split for split, _ in self.frames.places]
        at = places([(split, self.frames.path(i).stem) for i, split in enumerate(splits)])
        order = sorted(range(len(at)), key=lambda i: (at[i].video, at[i].rank))
        videos = [(video, list(self._runs(video))) for video in _by_video(order, at)]
        runs = [run for _, own in videos for run in own]
        self.groups = tuple(self._group(run) for run in runs if len(run) > 1)
        group_of = {i: number for number, run in enumerate(runs) for i in run}

        def skip(i: int, j: int) -> bool:
            return group_of[i] == group_of[j] and at[i].number != at[j].number

        pairs = self.index.pairs(splits, skip, self.frames, self.context.ray)
        yield from self._copies(pairs)
        same = {(pair.first, pair.second) for pair in pairs}
        for video, own in videos:
            yield from self._shared_video(video, own)
        for run in runs:
            for i, j in pairwise(run):
                if splits[i] != splits[j] and (min(i, j), max(i, j)) not in same:
                    yield self._finding(
                        "split-neighbors", i, [j], "Its neighbor in the video, which looks alike, is in"
                    )

    def _runs(self, video: list[int]) -> Iterator[list[int]]:
        """The frames of a video as runs of neighbors that look alike."""
        run = video[:1]
        for j, (bits, correlation) in zip(video[1:], self.index.similarities(list(pairwise(video)))):
            if bits <= ALIKE_BITS and correlation >= ALIKE_CORRELATION:
                run.append(j)
            else:
                yield run
                run = [j]
        yield run

    def _group(self, run: list[int]) -> Group:
        first, last = (self.context.name(self.frames.path(i)) for i in (run[0], run[-1]))
        return Group(first, last, len(run), tuple(dict.fromkeys(self._split(i) for i in run)))

    def _split(self, i: int) -> str:
        return self.frames.places[i][0]

    def _copies(self, pairs: list[Pair]) -> Iterator[Finding]:
        """One finding for each copy: of two splits the frame in the earlier one, of one split the later frame."""
        across: dict[int, list[Pair]] = defaultdict(list)
        within: dict[int, list[Pair]] = defaultdict(list)
        for pair in pairs:
            if self._split(pair.first) != self._split(pair.second):
                across[pair.first].append(pair)
            else:
                within[pair.second].append(pair)
        for i, found in across.items():
            others = sorted(found, key=lambda p: -p.score)
            yield self._finding("leak", i, [p.second for p in others], f"{_how(others)} of it is in", others[0].score)
        for i, found in within.items():
            others = sorted(found, key=lambda p: -p.score)
            kind = "duplicate" if others[0].how == IDENTICAL else "near-duplicate"
            yield self._finding(kind, i, [p.first for p in others], f"{_how(others)} of it is in", others[0].score)

    def _finding(self, kind: str, i: int, others: list[int], what: str, score: float = 1.0) -> Finding:
        names = [self.context.name(self.frames.path(j)) for j in others]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return Finding(
            kind=kind,
            file=self.context.name(self.frames.path(i)),
            what=f"{what} {self._split(others[0])}: {names[0]}{more}.",
            split=self._split(i),
            score=min(1.0, score),
            others=tuple(names[:5]),
        )

    def _shared_video(self, video: list[int], runs: list[list[int]]) -> Iterator[Finding]:
        counts: dict[str, int] = defaultdict(int)
        for i in video:
            counts[self._split(i)] += 1
        alike = (len(video) - len(runs)) / max(1, len(video) - 1)
        if len(counts) > 1 and alike >= VIDEO:
            first = self.context.name(self.frames.path(video[0]))
            where = ", ".join(f"{count} in {split}" for split, count in counts.items())
            what = f"Its video of {len(video)} frames is in several splits: {where}."
            yield Finding(kind="shared-video", file=first, what=what, split=self._split(video[0]))


def _how(pairs: list[Pair]) -> str:
    how = pairs[0].how
    return f"An {how}" if how[0] in "aeiou" else f"A {how}"


def _by_video(order: list[int], at: list[Place]) -> list[list[int]]:
    return [list(frames) for _, frames in groupby(order, key=lambda i: at[i].video)]


def open(context: Context) -> Check:
    return Copies(context)
