"""Rows of one type in a temporary file: what is kept of very many frames takes disk, not memory."""

from __future__ import annotations

from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from edgeseg.errors import FileError

BUFFER = 1 << 16  # bytes


class Rows:
    """Arrays of `dtype`, appended one after another, and read as one. The file goes with the object.

    FileError where the temporary folder (TMPDIR) cannot be written.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype = np.dtype(dtype)
        self._count = 0
        try:
            self._file = TemporaryFile(buffering=BUFFER)  # noqa: SIM115
        except OSError as error:
            raise _no_room(error) from error

    def __len__(self) -> int:
        return self._count

    def append(self, rows: ArrayLike) -> None:
        """One row, or an array [N] of them."""
        stored = np.ascontiguousarray(rows, self.dtype)
        try:
            self._file.write(stored.tobytes())
        except OSError as error:
            raise _no_room(error) from error
        self._count += stored.size

    def array(self) -> NDArray[Any]:
        """All rows [N]; changes go to the file, too."""
        if not self._count:
            return np.empty(0, self.dtype)
        try:
            self._file.flush()
        except OSError as error:
            raise _no_room(error) from error
        return np.memmap(self._file, self.dtype, "r+", shape=(self._count,)).view(np.ndarray)


def _no_room(error: OSError) -> FileError:
    return FileError(f"Cannot write a temporary file: {error.strerror}.", "Set TMPDIR to a folder with more room.")
