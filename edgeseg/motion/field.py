"""Field: where the content of every cell of a frame was in another one, on a grid of a few thousand cells.

A field is [rows, columns, 2] float32: (x, y) from the middle of a cell to where its content was, in pixels of the
frame. _motion.c adds the blocks up; where it could not be built, numpy does the same, slower, with equal results.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeseg.motion import Blocks

try:
    from edgeseg import _motion  # type: ignore[attr-defined,unused-ignore]
except ImportError:  # no C compiler when edgeseg was installed
    _motion = None

Field = NDArray[np.float32]
SMALLEST_CELL = 8  # pixels; half a macroblock of H.264
MOST_COLUMNS = 120
HOLE_ROUNDS = 4
HOLE_REACH = 5  # cells


def compiled() -> bool:
    """Whether the C kernel is there."""
    return _motion is not None


@dataclass(frozen=True)
class Grid:
    """Cells of `cell` x `cell` pixels over a frame of `height` x `width`."""

    height: int
    width: int

    @property
    def cell(self) -> int:
        cell = SMALLEST_CELL
        while max(self.height, self.width) > cell * MOST_COLUMNS:
            cell *= 2
        return cell

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return -(-self.height // self.cell), -(-self.width // self.cell)

    def still(self) -> Field:
        """The field of a picture in which nothing moved."""
        return np.zeros((*self.shape, 2), np.float32)


def of_blocks(blocks: Blocks, grid: Grid) -> tuple[Field, NDArray[np.bool_]]:
    """The mean motion of the blocks in every cell, by area, and which cells any block covers."""
    sums, areas = np.zeros((*grid.shape, 2)), np.zeros(grid.shape)
    add = _motion.blocks if _motion is not None else add_blocks
    add(np.ascontiguousarray(blocks, np.float32), grid.cell, *grid.shape, sums, areas)
    return np.asarray(sums / np.maximum(areas, 1)[..., None], np.float32), areas > 0


def add_blocks(
    blocks: Blocks, cell: int, rows: int, columns: int, sums: NDArray[np.float64], areas: NDArray[np.float64]
) -> None:
    """_motion.blocks in numpy."""
    corners = np.nan_to_num(blocks[:, :4]).clip(0, [columns * cell, rows * cell] * 2).astype(np.int64)
    for (x0, y0, x1, y1), moved in zip(corners.tolist(), blocks[:, 4:].astype(np.float64)):
        for row in range(y0 // cell, -(-y1 // cell)):
            for column in range(x0 // cell, -(-x1 // cell)):
                down = min(y1, (row + 1) * cell) - max(y0, row * cell)
                across = min(x1, (column + 1) * cell) - max(x0, column * cell)
                sums[row, column] += down * across * moved
                areas[row, column] += down * across


def fill_holes(field: Field, known: NDArray[np.bool_]) -> Field:
    """Cells that no block covers (they were coded anew) take the motion of the known ones around them.

    What is far from all known ones stays as it is.
    """
    if known.all():
        return field
    filled, weights = field * known[..., None], known.astype(np.float32)
    box = (HOLE_REACH, HOLE_REACH)
    for _ in range(HOLE_ROUNDS):
        near = cv2.blur(weights, box)
        mean = cv2.blur(filled, box) / np.maximum(near, 1e-6)[..., None]
        new = (weights == 0) & (near > 1e-6)
        if not new.any():
            break
        filled[new] = mean[new]
        weights[new] = 1
    return filled


def compose(earlier: Field, later: Field, grid: Grid) -> Field:
    """Motion since the beginning of `earlier`, of two fields that follow each other."""
    column, row = _cells(grid)
    x, y = column + later[..., 0] / grid.cell, row + later[..., 1] / grid.cell
    moved = cv2.remap(earlier, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    limit = (max(grid.height, grid.width),) * 2  # farther than from one border to the other nothing comes
    return np.asarray((later + moved).clip(-limit[0], limit[1]), np.float32)


@lru_cache(maxsize=16)
def _cells(grid: Grid) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    row, column = np.mgrid[0 : grid.shape[0], 0 : grid.shape[1]].astype(np.float32)
    return column, row
