"""Sources: what opens, what is refused with which words, what a damaged file gives."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from stream_helpers import clip, frame_image

from edgeseg.errors import EdgesegError, FileError, OptionError, StreamError
from edgeseg.stream import sources
from edgeseg.stream.sources import EndOfStream
from edgeseg.stream.sources.video import Video
from edgeseg.stream.uri import Uri


def everything(source) -> list:
    frames = []
    with source, pytest.raises(EndOfStream):
        while True:
            frame = source.read(1.0)
            if frame is not None:
                frames.append(frame)
    return frames


def test_a_video_gives_all_its_frames_in_order(tmp_path):
    source = sources.open(str(clip(tmp_path / "a.avi", frames=12)))
    assert (source.count, source.fps, source.live) == (12, 25.0, False)
    frames = everything(source)
    assert [f.index for f in frames] == list(range(12))
    assert all(np.abs(f.image.astype(int) - frame_image(f.index)).mean() < 10 for f in frames)
    assert source.warnings == []


def test_a_live_video_loops_at_its_own_pace(tmp_path, clock):
    path = clip(tmp_path / "a.avi", frames=3, fps=50)
    opened = sources.open(f"{path}?live=1&loop=1")
    opened.close()
    assert opened.live and opened.count is None
    source = Video(path, live=True, loop=True, clock=clock)
    with source:
        frames = []
        while len(frames) < 8:
            if (frame := source.read(0.001)) is not None:
                frames.append(frame)
    assert np.diff([f.captured for f in frames]) == pytest.approx(1 / 50)


def test_folders_globs_and_single_images(tmp_path):
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"f{i}.png"), frame_image(i))
    (tmp_path / "notes.txt").write_text("not an image")
    assert [f.source for f in everything(sources.open(str(tmp_path)))] == ["f0", "f1", "f2"]
    assert [f.source for f in everything(sources.open(f"{tmp_path}/f?.png"))] == ["f0", "f1", "f2"]
    assert [f.source for f in everything(sources.open(f"{tmp_path}/f[12].png"))] == ["f1", "f2"]
    assert len(everything(sources.open(str(tmp_path / "f1.png")))) == 1


def test_frames_are_in_natural_order(tmp_path):
    for name in ("frame10", "frame2", "Frame3", "frame1_b12", "frame1_b9", "007"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), frame_image(0))
    expected = ["007", "Frame3", "frame1_b9", "frame1_b12", "frame2", "frame10"]
    assert [f.source for f in everything(sources.open(str(tmp_path)))] == expected
    assert [f.source for f in everything(sources.open(f"{tmp_path}/*.png"))] == expected


COLONS = ["2024-05-01T12:30:00.avi", "rec:1.avi", "concat:a|b.avi", "subfile,,start,0,end,9,,:x.avi"]


@pytest.mark.parametrize("name", COLONS)
def test_colons_in_file_names(tmp_path, monkeypatch, name):
    """FFmpeg takes what stands before a colon for a protocol; with and without a folder in front."""
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "plain.avi", frames=3).rename(name)
    for path in (name, f"./{name}", str(tmp_path / name)):
        assert len(everything(sources.open(path))) == 3


def test_0_and_webcam_are_the_first_camera(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text, device in (
        ("0", "/dev/video0"),
        ("webcam", "/dev/video0"),
        ("97?size=640x480", "/dev/video97?size=640x480"),
    ):
        assert sources.is_camera(text)
        source = sources.open(text)
        assert source.name == device and source.live
        if not Path(device.split("?")[0]).exists():
            with pytest.raises(FileError, match=rf"Camera {device.split('?')[0]} does not exist\.\nPlug it in"):
                source.read(1)
    (tmp_path / "0").mkdir()
    cv2.imwrite("0/a.png", frame_image(0))
    assert len(everything(sources.open("0"))) == 1  # a folder of that name wins


VFR = Path(__file__).parents[3] / "shared/cases/video/vfr.mp4"


@pytest.mark.skipif(not VFR.is_file(), reason="the shared cases are not here")
def test_media_time_of_the_shared_case():
    pts = [frame.pts for frame in everything(sources.open(str(VFR)))]
    assert pts[12] == pytest.approx(0.4) and pts[13] == pytest.approx(0.4 + 1 / 6)
    assert np.diff(pts[:13]) == pytest.approx(1 / 30) and np.diff(pts[13:]) == pytest.approx(1 / 6)


def test_media_time_goes_on_over_the_rounds_of_a_loop(tmp_path):
    with sources.open(f"{clip(tmp_path / 'a.avi', frames=3, fps=10)}?loop=1") as source:
        assert [source.read(1).pts for _ in range(8)] == pytest.approx(np.arange(8) / 10)


def test_images_have_no_media_time(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), frame_image(0))
    assert [f.pts for f in everything(sources.open(str(tmp_path)))] == [None]


def test_same_names_in_two_folders_stay_apart(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "x.png"), frame_image(0))
    assert [f.source for f in everything(sources.open(f"{tmp_path}/*/x.png"))] == ["000000_x", "000001_x"]


def test_synthetic_scenes_are_the_same_every_time():
    uri = "synthetic://street?seed=7&frames=3&size=160x96&night=0.3"
    first, second = everything(sources.open(uri)), everything(sources.open(uri))
    assert len(first) == 3 and first[0].image.shape == (96, 160, 3)
    assert all((a.image == b.image).all() for a, b in zip(first, second))
    assert sources.open(uri + "&fps=25").live


def cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def test_a_truncated_video_gives_what_it_has_and_says_so(tmp_path):
    source = sources.open(str(cut(clip(tmp_path / "a.avi", frames=40), 0.5)))
    frames = everything(source)
    assert 5 < len(frames) < 35
    assert re.search(rf"ended after {len(frames)} of 40 frames: it is truncated or damaged", source.warnings[0])


def make_bad(folder: Path, kind: str) -> str:
    path = folder / "bad.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "corrupt":
        path.write_bytes(np.random.default_rng(0).bytes(20_000))
    elif kind == "no index":
        cut(clip(path, codec="mp4v"), 0.6)
    elif kind == "folder":
        return str(folder)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"Video .*bad\.mp4 does not exist"),
        ("empty", r"Video .*bad\.mp4 is empty \(0 bytes\)"),
        ("corrupt", r"bad\.mp4 cannot be opened\.\n.*re-encode"),
        ("no index", r"bad\.mp4 cannot be opened\.\n.*cut off before its index"),
        ("folder", r"No images in"),
    ],
)
def test_bad_files(tmp_path, kind, message):
    with pytest.raises(FileError, match=message):
        sources.open(make_bad(tmp_path, kind))


def test_a_codec_that_is_not_built_in(tmp_path):
    path = clip(tmp_path / "a.avi")
    path.write_bytes(path.read_bytes().replace(b"MJPG", b"ZZZ9"))
    with pytest.raises(FileError, match=r"(cannot be opened|no frame of it can be decoded)\.\n.*codec"):
        sources.open(str(path))


def test_a_frame_size_over_the_limit(tmp_path):
    path = clip(tmp_path / "a.avi")
    with pytest.raises(StreamError, match=r"is 192x128, over the limit of 0\.02 megapixels\.\n.*max_megapixels"):
        sources.open(f"{path}?max_megapixels=0.02")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sythetic://street", r"Unknown kind of source 'sythetic://'\.\nDid you mean 'synthetic'"),
        ("synthetic://steet", r"Unknown synthetic scene 'steet'\.\nDid you mean 'street'"),
        ("synthetic://street?sed=7", r"Unknown option of synthetic://street\?sed=\*\*\* 'sed'\.\nDid you mean 'seed'"),
        ("synthetic://street?size=big", r"Option size='big' .* not usable\.\nExpected WIDTHxHEIGHT"),
        ("synthetic://street?night=2", r"Expected a number from 0 to 1"),
        ("synthetic://street?frames=1.5", r"Expected a whole number from 1"),
        ("rtsp://u:pw@cam/live#transprt=udp", r"rtsp://\*\*\*@cam/live.* 'transprt'\.\nDid you mean 'transport'"),
        ("http://cam/live#transport=udp", r"Option transport .* is for rtsp:// only"),
        ("csi://left", r"csi://left has no sensor"),
        ("csi://0", r"csi:// needs GStreamer"),
        ("/dev/null", r"/dev/null is not a camera"),
        ("nowhere/", r"Image folder nowhere does not exist"),
        ("nowhere/*.png", r"No images match nowhere/\*\.png"),
        ("nowhere.png", r"Image nowhere\.png does not exist"),
        ("a.mp4?lop=1", r"Unknown option of a\.mp4\?lop=\*\*\* 'lop'\.\nDid you mean 'loop'"),
    ],
)
def test_bad_uris(uri, message):
    with pytest.raises(EdgesegError, match=message):
        sources.open(uri)


def test_a_camera_is_looked_for_when_it_is_read_so_that_it_may_be_absent_at_the_start():
    source = sources.open("/dev/video97")
    with pytest.raises(FileError, match=r"Camera /dev/video97 does not exist\.\nPlug it in"):
        source.read(1)


@pytest.mark.parametrize(
    ("text", "url", "options"),
    [
        ("rtsp://u:a#b@cam/live#timeout=5", "rtsp://u:a%23b@cam/live", {"timeout": 5.0}),
        ("rtsp://u:a#b@cam", "rtsp://u:a%23b@cam", {}),
        ("rtsp://u:p@ss/w?rd@cam:554/live", "rtsp://u:p%40ss%2Fw%3Frd@cam:554/live", {}),
        ("rtsp://u:p%40ss@cam/x", "rtsp://u:p%40ss@cam/x", {}),
        ("rtsp://u:50%off@cam/x", "rtsp://u:50%25off@cam/x", {}),
        ("http://cam:8080/a?mail=me@here.org#timeout=1", "http://cam:8080/a?mail=me@here.org", {"timeout": 1.0}),
        ("http://[::1]:80/a@b", "http://[::1]:80/a@b", {}),
        ("http://token@cam/a", "http://token@cam/a", {}),
    ],
)
def test_credentials_are_encoded_and_options_found_behind_them(text, url, options):
    uri = Uri.parse(text)
    assert uri.url() == url
    assert uri.split({"timeout": float}, mark="#")[1] == options


def test_an_image_that_breaks_off_later_ends_the_source_with_its_name(tmp_path):
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"f{i}.png"), frame_image(i))
    (tmp_path / "f1.png").write_bytes(b"\x89PNG broken")
    source = sources.open(str(tmp_path))
    source.read(1)
    with pytest.raises(FileError, match=r"f1\.png cannot be decoded"):
        source.read(1)


def test_an_unknown_option_is_an_option_error():
    with pytest.raises(OptionError):
        sources.open("synthetic://street?color=red")
