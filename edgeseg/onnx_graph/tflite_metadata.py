"""The metadata in a TFLite file (TFLITE_METADATA, as MediaPipe and TensorFlow Hub write it): normalization and labels.

A TFLite file is a FlatBuffer; one of its buffers is another one, whose tables are those of TensorFlow's
metadata_schema.fbs. Label files are appended to the file as a zip archive. Numbers below are slots of those tables.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

from edgeseg.errors import FileError
from edgeseg.files import require_file
from edgeseg.onnx_graph.exporter import BYTE, ExporterMetadata

MAX_BYTES = 1 << 30
MAX_LABELS = 1 << 20
BUFFERS, METADATA = 4, 6  # of Model
NAME = "TFLITE_METADATA"
SUBGRAPHS = 3  # of ModelMetadata
INPUTS, OUTPUTS = 2, 3  # of SubGraphMetadata
CONTENT, PROCESS_UNITS, FILES = 3, 4, 6  # of TensorMetadata
NORMALIZATION, IMAGE = 1, 2  # kinds of ProcessUnitOptions and ContentProperties
RGB = 1  # ColorSpaceType
LABELS = (2, 3)  # AssociatedFileType: of an axis, of values


class Table:
    """A table of a FlatBuffer at the byte `at`. Its accessors give None, "" or nothing for what is not there, and raise
    struct.error for offsets outside of the data."""

    def __init__(self, data: bytes, at: int):
        self._data, self._at = data, at

    def table(self, slot: int) -> Table | None:
        at = self._find(slot)
        return Table(self._data, at + self._read("<I", at)) if at else None

    def number(self, slot: int, kind: str = "<b") -> int:
        at = self._find(slot)
        return self._read(kind, at) if at else 0

    def text(self, slot: int) -> str:
        return self.data(slot).decode("utf-8", "replace")

    def data(self, slot: int) -> bytes:
        start, length = self._vector(slot)
        return self._data[start : start + length]

    def floats(self, slot: int) -> tuple[float, ...]:
        start, length = self._vector(slot)
        return struct.unpack_from(f"<{length}f", self._data, start) if length else ()

    def tables(self, slot: int) -> Iterator[Table]:
        start, length = self._vector(slot)
        for at in range(start, start + 4 * length, 4):
            yield Table(self._data, at + self._read("<I", at))

    def _vector(self, slot: int) -> tuple[int, int]:
        """Where its items begin, and how many they are."""
        at = self._find(slot)
        if not at:
            return 0, 0
        start = at + self._read("<I", at)
        length = self._read("<I", start)
        if length > len(self._data):
            raise struct.error("a vector is longer than the file")
        return start + 4, length

    def _find(self, slot: int) -> int:
        """Where a field is; 0 where it is absent."""
        entries = self._at - self._read("<i", self._at)
        place = 4 + 2 * slot
        if place + 2 > self._read("<H", entries):
            return 0
        offset = self._read("<H", entries + place)
        return self._at + offset if offset else 0

    def _read(self, kind: str, at: int) -> int:
        if at < 0:
            raise struct.error("an offset points before the file")
        return int(struct.unpack_from(kind, self._data, at)[0])


def root(data: bytes) -> Table:
    return Table(data, struct.unpack_from("<I", data)[0])


def of_tflite(path: Path) -> ExporterMetadata | None:
    """None for a file without metadata; FileError for one that cannot be read."""
    try:
        if require_file(path, "TFLite model").stat().st_size > MAX_BYTES:
            raise ValueError(f"over {MAX_BYTES >> 20} MiB")
        return _metadata(path, path.read_bytes())
    except (OSError, ValueError, struct.error, zipfile.BadZipFile) as error:
        raise FileError(f"{path} cannot be read: {error}.", "Copy it again, or move it away from the model.") from error


def _metadata(path: Path, data: bytes) -> ExporterMetadata | None:
    model = root(data)
    entry = next((table for table in model.tables(METADATA) if table.text(0) == NAME), None)
    if entry is None:
        return None
    buffers = list(model.tables(BUFFERS))
    number = entry.number(1, "<I")
    if number >= len(buffers):
        raise ValueError("its metadata is in a buffer that is not there")
    graph = next(root(buffers[number].data(0)).tables(SUBGRAPHS), None)
    image = next(graph.tables(INPUTS), None) if graph else None
    output = next(graph.tables(OUTPUTS), None) if graph else None
    mean, std = _normalization(image) if image else (None, None)
    labels = _labels(path, output) if output else ()
    color = "RGB" if image and _is_rgb(image) else None
    return ExporterMetadata(labels if len(labels) > 1 else None, None, None, mean, std, color)


def _normalization(image: Table) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and std for pixels from 0 to 1; the file has those for pixels from 0 to 255."""
    for unit in image.tables(PROCESS_UNITS):
        options = unit.table(1) if unit.number(0) == NORMALIZATION else None
        mean, std = (options.floats(0), options.floats(1)) if options else ((), ())
        if len(mean) == len(std) and len(mean) in (1, 3) and all(value > 0 for value in std):
            return tuple((tuple(v / BYTE for v in values) * 3)[:3] for values in (mean, std))  # type: ignore[return-value]
    return None, None


def _is_rgb(image: Table) -> bool:
    content = image.table(CONTENT)
    properties = content.table(1) if content and content.number(0) == IMAGE else None
    return properties is not None and properties.number(0) == RGB


def _labels(path: Path, output: Table) -> tuple[str, ...]:
    """The names in the label file of a tensor, in the order of their ids."""
    files = [file.text(0) for file in output.tables(FILES) if file.number(2) in LABELS]
    if not files or not zipfile.is_zipfile(path):
        return ()
    with zipfile.ZipFile(path) as archive:
        if files[0] not in archive.namelist() or archive.getinfo(files[0]).file_size > MAX_LABELS:
            return ()
        lines = archive.read(files[0]).decode("utf-8", "replace").splitlines()
    return tuple(line.strip() for line in lines if line.strip())
