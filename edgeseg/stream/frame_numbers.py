"""FrameNumbers: how many pictures of an H.264 stream never arrived, by the numbers that the others carry.

A decoder conceals a picture whose packets are all lost: it shows the next one, built on a wrong picture, and calls it
whole. But pictures that others refer to are numbered (ITU-T H.264, 7.4.3, frame_num), so a gap tells of the loss. What
no other picture refers to has no number of its own; where it is lost, nothing else is damaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SLICE, KEY_SLICE, SEQUENCE, PICTURE = 1, 5, 7, 8  # types of NAL units (table 7-1)
HIGH_PROFILES = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)  # with chroma_format_idc (7.3.2.1.1)
MOST_BYTES = 1 << 14  # of a packet that are searched for its first slice
START = b"\0\0\1"


@dataclass(frozen=True)
class Sequence:
    """What a sequence parameter set says of frame numbers: how many bits they have, and whether gaps are normal."""

    bits: int
    gaps: bool
    planes: bool  # three color planes, each of them coded by itself


class FrameNumbers:
    """Follows the packets of one stream, in the order in which they are decoded."""

    def __init__(self, extradata: bytes | None = None):
        """`extradata` of the codec: in streams with start codes the parameter sets; else an avcC record."""
        self._sequences: dict[int, Sequence] = {}
        self._pictures: dict[int, int] = {}  # picture parameter set -> sequence parameter set
        self._latest: int | None = None  # the number of the latest picture that others refer to
        extradata = extradata or b""
        avcc = len(extradata) > 6 and extradata[0] == 1
        self._length = 1 + (extradata[4] & 3) if avcc else 0  # bytes in front of each unit that say how long it is
        for unit in _units_of_avcc(extradata) if avcc else _units(extradata, 0):
            self._take_parameters(unit)

    def missing(self, packet: bytes | memoryview) -> int:
        """How many pictures are missing before the one of this packet, at least; 0 for what cannot be read.

        A gap of more than half of all numbers is taken for a lost key frame, behind which they begin anew.
        """
        for unit in _units(bytes(packet[:MOST_BYTES]), self._length):
            kind = unit[0] & 31
            if kind in (SLICE, KEY_SLICE):
                return self._follow(unit)
            self._take_parameters(unit)
        return 0

    def _follow(self, unit: bytes) -> int:
        bits = Bits(unit[1:64])
        bits.skip_golomb(2)  # first_mb_in_slice, slice_type
        sequence = self._sequences.get(self._pictures.get(bits.golomb(), -1))
        if sequence is None:
            return 0
        bits.take(2 if sequence.planes else 0)
        number, modulus = bits.take(sequence.bits), 1 << sequence.bits
        latest, key, referred = self._latest, unit[0] & 31 == KEY_SLICE, unit[0] >> 5 & 3
        if referred:
            self._latest = number
        if latest is None or key or sequence.gaps or number == latest:
            return 0
        gap = (number - latest - 1) % modulus
        return gap if gap <= modulus // 2 else 1

    def _take_parameters(self, unit: bytes) -> None:
        kind = unit[0] & 31
        if kind == SEQUENCE and len(unit) > 4:
            bits = Bits(unit[4:])
            number = bits.golomb()
            self._sequences[number] = _sequence(bits, unit[1])
        elif kind == PICTURE:
            bits = Bits(unit[1:])
            number = bits.golomb()
            self._pictures[number] = bits.golomb()


class Bits:
    """Reads the bits of a NAL unit; past its end they are 0."""

    def __init__(self, data: bytes):
        data = data.replace(b"\0\0\3", b"\0\0")  # 7.3.1: the 3 only keeps start codes from appearing
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        shifted = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return shifted & (1 << count) - 1

    def golomb(self) -> int:
        """Exponential Golomb code (9.1)."""
        zeros = 0
        while self._left > 0 and not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def skip_golomb(self, count: int) -> None:
        for _ in range(count):
            self.golomb()


def _sequence(bits: Bits, profile: int) -> Sequence:
    """The rest of a sequence parameter set (7.3.2.1.1) behind its number."""
    planes = False
    if profile in HIGH_PROFILES:
        chroma = bits.golomb()
        planes = chroma == 3 and bool(bits.take(1))
        bits.skip_golomb(2)  # bit depths
        bits.take(1)
        if bits.take(1):
            _skip_scaling_lists(bits, 12 if chroma == 3 else 8)
    number_bits = min(bits.golomb(), 12) + 4
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.skip_golomb(2)
        bits.skip_golomb(min(bits.golomb(), 255))
    bits.golomb()  # max_num_ref_frames
    return Sequence(number_bits, bool(bits.take(1)), planes)


def _skip_scaling_lists(bits: Bits, lists: int) -> None:
    """7.3.2.1.1.1: a list ends early where the next value would be 0."""
    for i in range(lists):
        if not bits.take(1):
            continue
        last = 8
        for _ in range(16 if i < 6 else 64):
            code = bits.golomb()
            last = (last + ((code + 1) // 2 if code % 2 else -(code // 2))) % 256
            if last == 0:
                break


def _units(data: bytes, length: int) -> Iterator[bytes]:
    """The NAL units of a packet, behind start codes (`length` 0) or behind `length` bytes that say how long each is."""
    if length:
        at = 0
        while at + length < len(data):
            size = int.from_bytes(data[at : at + length], "big")
            if unit := data[at + length : at + length + size]:
                yield unit
            at += length + size
        return
    at = data.find(START)
    while at >= 0:
        end = data.find(START, at + 3)
        if unit := data[at + 3 : end if end >= 0 else None]:
            yield unit
        at = end


def _units_of_avcc(record: bytes) -> Iterator[bytes]:
    """The parameter sets of an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1)."""
    at = 5
    for mask in (31, 255):  # sequence parameter sets, picture parameter sets
        count = record[at] & mask if at < len(record) else 0
        at += 1
        for _ in range(count):
            size = int.from_bytes(record[at : at + 2], "big")
            if unit := record[at + 2 : at + 2 + size]:
                yield unit
            at += 2 + size
