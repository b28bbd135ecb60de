"""Encoders of videos: H.264 by default, others by name where they are there, and Matroska."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from stream_helpers import SPEC, frame_image, read_back

from edgeseg.errors import OptionError
from edgeseg.result import Frame, Result
from edgeseg.stream import encoders, sinks, sources

av = pytest.importorskip("av", reason="H.264 needs PyAV: pip install 'edgeseg[camera]'")
INFO = sinks.Info(SPEC, 25.0)


def write(uri: str, frames: int = 50, times: list[float] | None = None) -> None:
    with sinks.open(uri, INFO) as sink:
        for i in range(frames):
            pts = times[i] if times else i / 25
            result = Result(Frame(frame_image(i), i, pts=pts), np.zeros((SPEC.height, SPEC.width), np.uint8), {})
            sink.write(result, frame_image(i))


def streams(path: Path) -> Any:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        times = [float(packet.pts * packet.time_base) for packet in container.demux(video) if packet.pts is not None]
        keys = sum(frame.key_frame for frame in av.open(str(path)).decode(video=0))
        return video.codec_context.name, video.codec_context.pix_fmt, times, keys, container.format.name


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_h264_is_the_default_and_keeps_uneven_times(tmp_path: Path, suffix: str) -> None:
    times = [0.0, 0.033, 0.067, 0.4, 0.567, 0.6, 3.0]
    write(f"{tmp_path}/out{suffix}", 7, times)
    name, pixels, found, _, container = streams(tmp_path / f"out{suffix}")
    assert (name, pixels) == ("h264", "yuv420p") and found == pytest.approx(times, abs=1e-3)
    assert ("matroska" if suffix == ".mkv" else "mp4") in container
    shown = read_back(tmp_path / f"out{suffix}")
    assert len(shown) == 7 and np.abs(shown[3].astype(int) - frame_image(3)).mean() < 4


def test_a_player_may_jump_every_four_seconds(tmp_path: Path) -> None:
    write(f"{tmp_path}/out.mp4", 250)
    assert streams(tmp_path / "out.mp4")[3] >= 3


def test_encoders_are_chosen_by_name(tmp_path: Path) -> None:
    write(f"{tmp_path}/old.mp4?encoder=mpeg4")
    assert streams(tmp_path / "old.mp4")[0] == "mpeg4" and len(read_back(tmp_path / "old.mp4")) == 50


@pytest.mark.parametrize("name", ["h264_vaapi", "h264_nvenc", "h264_qsv", "h264_v4l2m2m", "h264_rkmpp"])
def test_an_encoder_of_a_chip_works_or_is_refused_with_those_that_are_there(tmp_path: Path, name: str) -> None:
    try:
        write(f"{tmp_path}/out.mp4?encoder={name}")
    except OptionError as error:
        assert error.what.startswith(f"The encoder {name} cannot be used: ")
        assert (
            "On this machine there are: " in error.hint and "libx264" in error.hint and list(tmp_path.iterdir()) == []
        )
    else:
        assert streams(tmp_path / "out.mp4")[0] == "h264" and len(read_back(tmp_path / "out.mp4")) == 50


def test_unknown_encoders_and_files_without_a_choice(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"The encoder theora cannot be used: edgeseg does not know it.\n.*libx264"):
        sinks.open(f"{tmp_path}/out.mp4?encoder=theora", INFO)
    with pytest.raises(OptionError, match=r"nvv4l2h264enc cannot be used: it is an element of GStreamer"):
        sinks.open(f"{tmp_path}/out.mkv?encoder=nvv4l2h264enc", INFO)
    with pytest.raises(OptionError, match=r"encoder=libx264 of .*out.avi: only .mp4 and .mkv"):
        sinks.open(f"{tmp_path}/out.avi?encoder=libx264", INFO)


def test_without_h264_it_is_mpeg4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    encoders._preferred.cache_clear()
    write(f"{tmp_path}/out.mp4")
    encoders._preferred.cache_clear()
    assert streams(tmp_path / "out.mp4")[0] == "mpeg4"


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_clip_is_turned_as_its_metadata_says(tmp_path: Path, turn: int) -> None:
    """Phones store their videos on the side."""
    write(f"{tmp_path}/out.mp4", 5)
    turned = tmp_path / "turned.mp4"
    tag = ["-c", "copy", "-metadata:s:v", f"rotate={turn}"]
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "out.mp4", *tag, turned]
    try:
        subprocess.run([str(word) for word in command], check=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("needs ffmpeg")
    with sources.open(str(turned)) as source:
        frame = source.read(1.0)
    assert frame is not None
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(turned), "-frames:v", "1", str(tmp_path / "as.png")], check=True)
    expected = np.asarray(cv2.imread(str(tmp_path / "as.png")), np.uint8)  # as FFmpeg's own player shows it
    assert frame.image.shape == expected.shape == ((128, 192, 3) if turn == 180 else (192, 128, 3))
    assert np.abs(frame.image.astype(int) - expected).mean() < 4
