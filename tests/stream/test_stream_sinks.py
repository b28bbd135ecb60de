"""Sinks for files: what they leave behind, and what is refused before anything runs."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from stream_helpers import COLORS, SPEC, frame_image, read_back

from edgeseg.errors import EdgesegError, FileError
from edgeseg.images import palette_png
from edgeseg.overlay import Overlay
from edgeseg.result import Frame, Result
from edgeseg.stream import sinks
from edgeseg.stream.encoders import ConstantEncoder, TimedEncoder

INFO = sinks.Info(SPEC, fps=25.0)


def result(i: int, captured: float = 0.0, source: str = "", pts: float | None = None) -> Result:
    classmap = (np.arange(SPEC.width) * 4 // SPEC.width).astype(np.uint8)
    classmap = np.tile(classmap, (SPEC.height, 1))
    return Result(Frame(frame_image(i), i, captured, source, pts), classmap, {"infer": 0.01}, spec=SPEC)


def png_ids(data: bytes):
    """Class ids of a palette PNG, by hand: OpenCV would give colors."""
    at, parts = 8, {}
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == int.from_bytes(data[at + 8 + length : at + 12 + length], "big")
        parts[kind] = body
        at += 12 + length
    width, height = (int.from_bytes(parts[b"IHDR"][i : i + 4], "big") for i in (0, 4))
    return np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, width + 1)[:, 1:], parts[b"PLTE"]


def test_a_palette_png_holds_ids_and_shows_colors(tmp_path):
    classmap = result(0).classmap
    ids, palette = png_ids(palette_png(classmap, SPEC.palette))
    assert (ids == classmap).all()
    assert palette == bytes(np.array(SPEC.palette, np.uint8).tobytes())
    shown = cv2.imdecode(np.frombuffer(palette_png(classmap, SPEC.palette), np.uint8), cv2.IMREAD_COLOR)
    assert tuple(shown[0, 0][::-1]) == SPEC.palette[0]


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_video_appears_whole_when_it_is_closed(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    with sinks.open(str(path), INFO) as sink:
        for i in range(10):
            sink.write(result(i), frame_image(i))
        assert not path.exists()
    assert len(read_back(path)) == 10
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_live_video_keeps_the_clock(tmp_path):
    """The rate is the one at which frames come, not the one that the camera names; then one is 2 s late."""
    with sinks.open(str(tmp_path / "out.avi"), sinks.Info(SPEC, 25.0, live=True)) as sink:
        for i, at in enumerate((0, 0.5, 1, 1.5, 2, 4, 4.5)):
            sink.write(result(i, captured=100.0 + at), frame_image(i))
    assert times(tmp_path / "out.avi") == pytest.approx(np.arange(10) / 2)


def times(path: Path) -> list[float]:
    """The media time of every frame of a video, in seconds."""
    capture, found = cv2.VideoCapture(str(path)), []
    while capture.read()[0]:
        found.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3)
    return found


UNEVEN = [0.0, 0.033333, 0.066667, 0.4, 0.566667, 0.6, 3.0]


def test_an_mp4_keeps_uneven_times(tmp_path):
    pytest.importorskip("av", reason="mp4 files of any times need PyAV: pip install 'edgeseg[camera]'")
    with sinks.open(str(tmp_path / "out.mp4"), sinks.Info(SPEC, 12.0)) as sink:
        for i, pts in enumerate(UNEVEN):
            sink.write(result(i, pts=10.0 + pts), frame_image(i))
    assert times(tmp_path / "out.mp4") == pytest.approx(UNEVEN, abs=1e-4)
    assert sink.warnings == []


def test_a_constant_rate_repeats_and_leaves_out_and_says_so(tmp_path):
    with sinks.open(str(tmp_path / "out.avi"), sinks.Info(SPEC, 10.0)) as sink:
        for i, pts in enumerate(UNEVEN):
            sink.write(result(i, pts=pts), frame_image(i))
    shown = [
        int(np.abs(f.astype(int)[None] - [frame_image(i) for i in range(4)]).mean((1, 2, 3)).argmin())
        for f in read_back(tmp_path / "out.avi")
    ]
    # 0.033 s has no tenth of its own; 0.6 s neither, but is shown until 3 s.
    assert shown == [0, 2, 2, 2, 3, 3, 4 % 4, *[5 % 4] * 23, 6 % 4]
    assert "frames left out: 1. At a constant frame rate" in sink.warnings[0]


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_rate_that_is_asked_for_gives_every_frame_the_same_time(tmp_path, suffix):
    with sinks.open(f"{tmp_path}/out{suffix}?fps=4", sinks.Info(SPEC, 12.0)) as sink:
        for i, pts in enumerate(UNEVEN):
            sink.write(result(i, pts=pts), frame_image(i))
    assert times(tmp_path / f"out{suffix}") == pytest.approx(np.arange(7) / 4, abs=1e-3)


@pytest.mark.parametrize("fps", [700.123, 999.9, 119.88012, 59.94006, 23.976024, 14.98765, 0.123])
@pytest.mark.parametrize("timed", [True, False], ids=["PyAV", "OpenCV"])
def test_frame_rates_that_mpeg4_cannot_hold(tmp_path, fps, timed):
    """Its clock has at most 65535 ticks a second."""
    if timed:
        pytest.importorskip("av", reason="pip install 'edgeseg[camera]'")
    path = tmp_path / "out.mp4"
    encoder = (TimedEncoder if timed else ConstantEncoder)(path, 192, 128, fps)
    for i in range(10):
        encoder.write(frame_image(i), i / fps)
    encoder.close()
    assert times(path) == pytest.approx(np.arange(10) / fps, rel=2e-3, abs=2e-5)


def test_odd_sizes_are_written(tmp_path):
    with sinks.open(str(tmp_path / "out.mp4"), INFO) as sink:
        sink.write(result(0), frame_image(0, 97, 131))
    assert read_back(tmp_path / "out.mp4")[0].shape == (96, 130, 3)


@pytest.mark.parametrize("name", ["2024-05-01T12:30:00.mp4", "2024-05-01T12:30:00.avi", "file:x.mp4", "a:b/"])
def test_colons_in_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with sinks.open(name, INFO) as sink:
        sink.write(result(0), frame_image(0))
    assert Path(name).exists()


def test_json_lines_have_the_media_time(tmp_path):
    with sinks.open(str(tmp_path / "12:30.jsonl"), INFO) as sink:
        sink.write(result(0, pts=0.4), None)
        sink.write(result(1), None)
    lines = [json.loads(line) for line in (tmp_path / "12:30.jsonl").read_text().splitlines()]
    assert [line["pts"] for line in lines] == [0.4, None]


def test_a_change_of_size_is_stretched_and_counted(tmp_path):
    with sinks.open(str(tmp_path / "out.avi"), INFO) as sink:
        sink.write(result(0), frame_image(0))
        sink.write(result(1), frame_image(1, 64, 96))
        assert "frame size changed" in sink.warnings[0]
    assert [f.shape for f in read_back(tmp_path / "out.avi")] == [(128, 192, 3)] * 2


def test_no_frames_leave_no_file(tmp_path):
    sinks.open(str(tmp_path / "out.mp4"), INFO).close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_gets_masks_and_overlays(tmp_path):
    with sinks.open(f"{tmp_path}/out/?overlay=1", INFO) as sink:
        sink.write(result(3), frame_image(3))
        sink.write(result(4, source="street"), frame_image(4))
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"000003.png", "000003.overlay.jpg", "street.png", "street.overlay.jpg"}


def test_the_overlay_tints_and_names_what_is_there():
    drawn = Overlay(SPEC, alpha=0.5).draw(frame_image(0), result(0).classmap)
    expected = (COLORS[3].astype(int) + np.array(SPEC.palette[3])[::-1]) // 2
    assert np.abs(drawn[-2, -2] - expected).max() <= 1
    assert drawn.shape == frame_image(0).shape
    captioned = Overlay(SPEC).draw(frame_image(0), result(0).classmap, "25 FPS")
    assert (captioned[-40:] != drawn[-40:]).any()
    tiny = Overlay(SPEC).draw(frame_image(0, 8, 8), result(0).classmap, "25 FPS")
    assert tiny.shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("out.txt", r"Cannot tell what to write to out\.txt\.\nKnown forms: .*FILE\.mp4"),
        ("-", r"cannot be written to standard output\.\nName a file, such as FILE\.jsonl"),
        ("-?overlay=1", r"cannot be written to standard output"),
        ("nul://", r"Unknown kind of sink 'nul://'\.\nDid you mean 'null'"),
        ("out/?mask=1", r"Unknown option of out/\?mask=\*\*\* 'mask'\.\nDid you mean 'masks'"),
        ("out/?masks=0", r"neither masks nor overlays"),
        ("window://", r"this one is headless\.\nWrite FILE\.mp4"),
        ("{file}/out.mp4", r"Cannot write .*file: (Not a directory|File exists)"),
        ("{file}/out/", r"Cannot write"),
        ("/proc/out.mp4", r"Cannot write /proc: .*\nChoose a folder you may write"),
    ],
)
def test_refused_before_anything_runs(tmp_path, monkeypatch, uri, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EdgesegError, match=message):
        sinks.open(uri.format(file=tmp_path / "file"), INFO)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match="Permission denied"):
        sinks.open(str(tmp_path / "out.mp4"), INFO)


def test_forms_are_unclaimed_by_two():
    for uri in ("out.mp4", "out/", "null://", "window://"):
        parsed = sinks.Uri.parse(uri)
        assert sum(m.claims(parsed) for m in sinks.modules()) == 1, uri
    assert Path("out").suffix == ""
