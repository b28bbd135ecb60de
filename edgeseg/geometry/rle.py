"""Run-length codes of masks: COCO's (numbers or text), CVAT's and Label Studio's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import FileError
from edgeseg.geometry.regions import Mask, Region

LENGTH_BITS = (3, 4, 8, 16)  # of a run in Label Studio's code, chosen by two bits
MOST_BITS = 16


def runs(mask: Mask) -> list[int]:
    """Lengths of the runs of a mask [H, W] in rows, zeros first."""
    flat = mask.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(np.r_[0, changes, flat.size]).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths


def from_runs(counts: Sequence[int], height: int, width: int) -> Mask:
    """[height, width] bool; FileError where the runs do not add up to that."""
    try:
        lengths = np.array(counts, np.int64)
    except (TypeError, ValueError, OverflowError):
        raise _faulty("holds something else than whole numbers") from None
    if lengths.ndim != 1 or lengths.dtype != np.int64 or (lengths < 0).any() or (lengths > height * width).any():
        raise _faulty("holds impossible lengths")
    if lengths.sum() != height * width:
        raise _faulty(f"is for {lengths.sum()} pixels, not {height * width}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(height, width)


def coco_region(counts: Sequence[int], height: int, width: int) -> Region:
    """The pixels of COCO's runs, which go down the columns; only the columns that hold any."""
    whole = list(counts)
    try:
        before, total = int(whole[0]) if whole else 0, sum(whole)
        after = int(whole[-1]) if len(whole) % 2 else 0
    except (TypeError, ValueError, OverflowError):
        raise _faulty("holds something else than whole numbers") from None
    if total != height * width:
        raise _faulty(f"is for {str(total)[:20]} pixels, not {height * width}")
    if not (0 <= before <= total and 0 <= after <= total):
        raise _faulty("holds impossible lengths")
    x0, x1 = before // height, width - after // height
    if len(whole) < 2 or x0 >= x1:
        return Region(0, 0, np.zeros((0, 0), bool))
    whole[0] -= x0 * height
    if after:
        whole[-1] -= (width - x1) * height
    return Region(x0, 0, from_runs(whole, x1 - x0, height).T)


def coco_runs(region: Region, height: int, width: int) -> list[int]:
    """The runs of a region in a frame of height x width, down the columns."""
    columns = np.zeros((region.mask.shape[1], height), bool)
    columns[:, region.window[0]] = region.mask.T
    found = runs(columns)
    found[0] += region.x * height
    after = (width - region.x - region.mask.shape[1]) * height
    if len(found) % 2:
        found[-1] += after
    elif after:
        found.append(after)
    return found


def coco_text(counts: Sequence[int]) -> str:
    """Runs as COCO's text: differences to the run before the last, six bits a character."""
    out = bytearray()
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            out.append(bits + 32 * more + 48)
    return out.decode()


def from_coco_text(text: str) -> list[int]:
    """The runs in COCO's text; FileError for other characters."""
    try:
        codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        codes = np.array([-1])
    if codes.size == 0 or (codes < 0).any() or (codes > 63).any() or codes[-1] & 32:
        raise _faulty("is not COCO's text")
    last = np.flatnonzero(codes & 32 == 0)
    first = np.r_[0, last[:-1] + 1]
    if (last - first).max() > 11:
        raise _faulty("holds impossible lengths")
    shift = 5 * (np.arange(codes.size) - np.repeat(first, last - first + 1))
    values = np.add.reduceat((codes & 31) << shift, first)
    values -= np.where(codes[last] & 16, np.int64(1) << np.minimum(5 * (last - first + 1), 62), 0)
    values[1::2], values[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
    return [int(value) for value in values]


def label_studio(mask: Mask) -> list[int]:
    """A mask in Label Studio's code: the bytes of an RGBA image whose pixels are all 0 or all 255."""
    bits = [f"{4 * mask.size:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in LENGTH_BITS)]
    for i, length in enumerate(runs(mask)):
        left = 4 * length
        while left:
            part = min(left, 1 << MOST_BITS)
            kind = next(k for k, size in enumerate(LENGTH_BITS) if part <= 1 << size)
            bits.append(f"1{kind:02b}{part - 1:0{LENGTH_BITS[kind]}b}{255 * (i % 2):08b}")
            left -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def from_label_studio(code: Sequence[int], height: int, width: int) -> Mask:
    """[height, width]: where the alpha of the coded RGBA image is not 0. FileError for a code of another size."""
    try:
        bits = np.unpackbits(np.array(code, np.uint8))
    except (TypeError, ValueError, OverflowError):
        raise _faulty("holds something else than bytes") from None
    reader = _Bits(bits)
    total, word = reader.number(32), reader.number(5) + 1
    sizes = [reader.number(4) + 1 for _ in range(4)]
    if total != 4 * height * width or word != 8:
        raise _faulty(f"is for {total} values of {word} bits, not {4 * height * width} of 8")
    values = np.zeros(total, np.uint8)
    at = 0
    while at < total:
        repeated, kind = reader.number(1), reader.number(2)
        end = at + reader.number(sizes[kind]) + 1
        if end > total:
            raise _faulty("is longer than its image")
        values[at:end] = reader.number(8) if repeated else reader.bytes(end - at)
        at = end
    return values.reshape(height, width, 4)[..., 3] > 0


class _Bits:
    def __init__(self, bits: NDArray[np.uint8]):
        self._bits, self._at = bits, 0
        self._weights = 1 << np.arange(31, -1, -1, dtype=np.int64)

    def _take(self, count: int) -> NDArray[np.uint8]:
        if self._at + count > self._bits.size:
            raise _faulty("is cut off")
        self._at += count
        return self._bits[self._at - count : self._at]

    def number(self, count: int) -> int:
        return int(self._take(count) @ self._weights[32 - count :])

    def bytes(self, count: int) -> NDArray[np.uint8]:
        return np.packbits(self._take(8 * count))


def _faulty(what: str) -> FileError:
    return FileError(f"An RLE {what}.", "Export it again.")
