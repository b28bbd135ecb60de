"""FrameNumbers: pictures of H.264 streams that never arrived; streams made with x264, and bytes that are no stream."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.stream.frame_numbers import FrameNumbers

av = pytest.importorskip("av", reason="needs PyAV: pip install 'edgeseg[camera]'")
KINDS = {
    "one reference": {"bf": "0", "refs": "1"},
    "baseline": {"profile": "baseline"},
    "scaling lists": {"bf": "0", "x264-params": "cqm=jvt"},
    "intra refresh": {"bf": "0", "intra-refresh": "1"},
    "frames between": {"bf": "3", "preset": "veryslow"},
    "interlaced": {"bf": "2", "x264-params": "interlaced=1"},
}


@cache
def stream(container: str, kind: str, key_every: int = 50) -> bytes:
    """80 pictures of 160x96 that all differ."""
    buffer = io.BytesIO()
    scene = np.random.default_rng(0).integers(0, 255, (96, 400, 3), np.uint8)
    with av.open(buffer, "w", format=container) as out:
        video = out.add_stream("libx264", rate=25, options={"g": str(key_every), **KINDS[kind]})
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        for i in range(80):
            image = np.ascontiguousarray(scene[:, 2 * i : 2 * i + 160])
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        out.mux(video.encode())
    return buffer.getvalue()


def missing(data: bytes, lost: set[int]) -> list[int]:
    """What is told at each packet where those of `lost` do not arrive."""
    with av.open(io.BytesIO(data)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        numbers = FrameNumbers(container.streams.video[0].codec_context.extradata)
        return [numbers.missing(memoryview(p)) for i, p in enumerate(packets) if i not in lost]


@pytest.mark.parametrize("container", ["mpegts", "matroska"])  # start codes, lengths
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_stream_misses_nothing(container, kind):
    told = missing(stream(container, kind), set())
    assert len(told) == 80 and sum(told) == 0


@pytest.mark.parametrize("container", ["mpegts", "matroska"])
@pytest.mark.parametrize("kind", ["one reference", "baseline", "scaling lists", "intra refresh"])
def test_each_lost_picture_is_told_where_the_next_one_comes(container, kind):
    told = missing(stream(container, kind), {10, 20, 21, 33, 70})
    assert [(i, n) for i, n in enumerate(told) if n] == [(10, 1), (19, 2), (30, 1), (66, 1)]


@pytest.mark.parametrize("kind", ["frames between", "interlaced"])
def test_of_a_stream_with_frames_that_none_refers_to_the_others_are_told(kind):
    lost = set(range(5, 80, 10))
    assert 1 <= sum(missing(stream("mpegts", kind), lost)) <= 2 * len(lost)


def test_a_lost_key_frame_is_one_picture():
    told = missing(stream("mpegts", "one reference", 20), {40})
    assert [(i, n) for i, n in enumerate(told) if n] == [(40, 1)]


@given(st.binary(max_size=300), st.lists(st.binary(max_size=300), max_size=5))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_without_an_error(extradata, packets):
    numbers = FrameNumbers(extradata)
    assert all(numbers.missing(packet) >= 0 for packet in packets)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_stream_is_read_without_an_error(data):
    with av.open(io.BytesIO(stream("mpegts", "frames between"))) as container:
        packets = [bytearray(memoryview(p)) for p in container.demux(video=0) if p.size][:8]
    numbers = FrameNumbers()
    for packet in packets:
        for _ in range(data.draw(st.integers(0, 3))):
            packet[data.draw(st.integers(0, min(60, len(packet) - 1)))] = data.draw(st.integers(0, 255))
        assert numbers.missing(bytes(packet)) >= 0
