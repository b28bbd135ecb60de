"""Pixels to outlines: rings along pixel corners, which by_centers and pycocotools turn back without a change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeseg.geometry.regions import Region

Ring = NDArray[np.int64]


def rings(mask: NDArray[np.bool_]) -> list[Ring]:
    """[N, 2] corners (x, y) of every outline of `mask` [H, W], holes too. Pixels that touch at a corner are apart.

    A ring turns at every corner, so its edges are horizontal and vertical in turn. In a row of the grid, the corners
    are pairwise the ends of horizontal edges; in a column, of vertical ones. A grid point where two rings meet is two
    corners.
    """
    cells = np.pad(mask, 1).astype(bool)
    tl, tr, bl, br = cells[:-1, :-1], cells[:-1, 1:], cells[1:, :-1], cells[1:, 1:]
    saddle = (tl == br) & (tr == bl) & (tl != tr)
    y, x = np.nonzero((tl ^ tr ^ bl ^ br) | saddle)
    twice = saddle[y, x]
    first_is_upper = tl[y, x]  # of the two corners at a saddle: the left one goes up if the upper left pixel is set
    number = 1 + twice
    y, x, upper = np.repeat(y, number), np.repeat(x, number), np.repeat(first_is_upper, number)
    second = np.r_[False, (y[1:] == y[:-1]) & (x[1:] == x[:-1])]
    along_row = np.lexsort((second, x, y))
    along_column = np.lexsort((second == upper, y, x))
    across, down = _mates(along_row), _mates(along_column)
    return [np.stack((x[walk], y[walk]), axis=1) for walk in _walks(across.tolist(), down.tolist())]


def _mates(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The corner at the other end of each corner's edge; `order` lists the ends pairwise."""
    mate = np.empty_like(order)
    mate[order[::2]], mate[order[1::2]] = order[1::2], order[::2]
    return mate


def _walks(across: list[int], down: list[int]) -> list[list[int]]:
    visited = bytearray(len(across))
    walks = []
    for start in range(len(across)):
        walk, at = [], start
        while not visited[at]:
            other = across[at]
            visited[at] = visited[other] = 1
            walk += [at, other]
            at = down[other]
        if walk:
            walks.append(walk)
    return walks


def joined(found: Sequence[Ring]) -> Ring:
    """All rings as one, for formats whose objects have one ring: it goes from each to the next and in the end back the
    same way, which encloses nothing."""
    if len(found) == 1:
        return found[0]
    starts = [ring[:1] for ring in found]
    there = [part for ring, start in zip(found, starts) for part in (ring, start)]
    return np.concatenate([*there, *starts[-2::-1]])


def outline(region: Region) -> Ring:
    """A region of a frame as one ring."""
    ring: Ring = joined(rings(region.mask)) + np.array((region.x, region.y))
    return ring
