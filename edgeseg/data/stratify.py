"""Greedy iterative stratification: groups of frames to splits, so that each gets its share of frames and of classes.

After Sechidis et al. 2011 ("On the stratification of multi-label data", algorithm 1), with groups in place of
examples: the class that the fewest frames still to be placed hold comes first; each group with it goes where most
frames with that class are missing. A split that a group would overfill by more than half of it is passed over, so that
the shares of frames hold within the size of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import OptionError

Counts = NDArray[np.float64]


def stratify(content: Counts, shares: Sequence[float], seed: int = 0) -> list[int]:
    """The split (0 to S - 1) of each of N groups; none stays empty, and the same seed gives the same splits.

    `content`: [N, 1 + C], a group's frames, and its frames with each class. `shares`: of each split, sum 1.
    OptionError where there are fewer groups than splits.
    """
    content = np.asarray(content, float)
    if len(content) < len(shares):
        raise OptionError(
            f"The frames form {len(content)} groups, too few for {len(shares)} splits.",
            "No group is divided. Choose a finer pattern for --group, or fewer splits.",
        )
    random = np.random.default_rng(seed)
    missing = np.outer(shares, content.sum(0))  # [S, 1 + C]
    order = random.permutation(len(content))
    split = np.full(len(content), -1)
    while (split < 0).any():
        left = order[split[order] < 0]
        column = _rarest(content[left])
        holders = left[content[left, column] > 0] if column else left
        for group in sorted(holders, key=lambda g: -content[g, column]):
            chosen = _neediest(missing, column, content[group, 0], random)
            split[group] = chosen
            missing[chosen] -= content[group]
    _fill_empty(split, content, len(shares))
    return [int(s) for s in split]


def _rarest(left: Counts) -> int:
    """The column of the class that the fewest frames hold, among those that any does; 0 if none does."""
    frames = left[:, 1:].sum(0)
    return int(np.where(frames > 0, frames, np.inf).argmin()) + 1 if (frames > 0).any() else 0


def _neediest(missing: Counts, column: int, frames: float, random: np.random.Generator) -> int:
    """The split that lacks most of a column's frames; among equals, most frames, and then a random one."""
    fits = missing[:, 0] >= frames / 2
    if not fits.any():
        fits = missing[:, 0] >= missing[:, 0].max()
    candidates = np.flatnonzero(fits)
    keys = (random.random(len(candidates)), missing[candidates, 0].round(6), missing[candidates, column].round(6))
    return int(candidates[np.lexsort(keys)[-1]])


def _fill_empty(split: NDArray[np.int64], content: Counts, splits: int) -> None:
    """An empty split takes the smallest group of the split with the most groups."""
    for empty in range(splits):
        if not (split == empty).any():
            donor = np.bincount(split, minlength=splits).argmax()
            members = np.flatnonzero(split == donor)
            split[members[content[members, 0].argmin()]] = empty
