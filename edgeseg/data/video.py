"""Frames of one video: files whose names differ in a number only."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

SHARED_NUMBERS = 0.5  # of a split's: from there on the numbers of two splits are not one count


@dataclass(frozen=True)
class Place:
    """Where a frame stands: `video` by number, at `rank` among its frames in this dataset."""

    video: int
    rank: int
    number: int

    def follows(self, other: Place) -> bool:
        """Whether the two are neighbors, in either order; frames of one number are copies."""
        return self.video == other.video and abs(self.rank - other.rank) == 1 and self.number != other.number


def places(names: Sequence[tuple[str, str]]) -> list[Place]:
    """The place of each frame, given as its split and the stem of its name.

    Frames of several splits are one video where their names have the same words around the number and the numbers
    rarely occur twice; where each split counts for itself they are not.
    """
    by_words: dict[tuple[str, str], dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for i, (split, stem) in enumerate(names):
        words, number = split_name(stem)
        by_words[words][split].append((number, i))
    out: list[Place | None] = [None] * len(names)
    video = 0
    for splits in by_words.values():
        runs = [[f for frames in splits.values() for f in frames]] if _one_count(splits) else list(splits.values())
        for frames in runs:
            for rank, (number, i) in enumerate(sorted(frames)):
                out[i] = Place(video, rank, number)
            video += 1
    return [place for place in out if place is not None]


def split_name(stem: str) -> tuple[tuple[str, str], int]:
    """The words around the frame's number, and that number: of several the longest, of these the last."""
    found = max(re.finditer(r"[0-9]+", stem), key=lambda m: (len(m[0]), m.start()), default=None)
    if found is None:
        return (stem, ""), 0
    return (stem[: found.start()], stem[found.end() :]), int(found[0][-18:])


def _one_count(splits: dict[str, list[tuple[int, int]]]) -> bool:
    numbers = [{number for number, _ in frames} for frames in splits.values()]
    return all(
        len(a & b) < SHARED_NUMBERS * min(len(a), len(b)) for i, a in enumerate(numbers) for b in numbers[i + 1 :]
    )
