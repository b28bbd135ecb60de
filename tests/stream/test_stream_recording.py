"""Recordings: what is left of them after a kill, what they may replace, and how many frames they lose."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from stream_helpers import SPEC, bundle, clip, frame_image, read_back

from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.result import Frame, Result
from edgeseg.stream import sinks
from edgeseg.stream.partial import PartialFile

EDGESEG = [sys.executable, "-c", "from edgeseg.cli import main; main()"]
LIVE = sinks.Info(SPEC, live=True)
needs_av = pytest.mark.skipif(not pytest.importorskip("av"), reason="pip install 'edgeseg[camera]'")


def result(i: int, captured: float) -> Result:
    return Result(Frame(frame_image(i), i, captured), np.zeros((SPEC.height, SPEC.width), np.uint8), {})


def record(path: str, seconds: float, fps: float = 25.0, info: sinks.Info = LIVE, start: float = 0.0) -> sinks.Sink:
    """A camera's frames at `fps`, as fast as they can be written."""
    with sinks.open(path, info) as sink:
        for i in range(round(seconds * fps)):
            sink.write(result(i, start + i / fps), frame_image(i))
    return sink


def last_time(path: Path) -> float:
    """When the last frame of a video is shown, in seconds."""
    capture, at = cv2.VideoCapture(str(path)), -1.0
    while capture.read()[0]:
        at = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
    return at


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'edgeseg[openvino]'")
    return bundle(tmp_path_factory.mktemp("model") / "colors")


def kill_while_recording(
    folder: Path, model: Path, start_process, number: int, seconds: float, suffix: str = ".mp4"
) -> float:
    """By how many seconds the file that is left is shorter than what was segmented until then."""
    source = f"{clip(folder / 'a.avi', size=(240, 320))}?loop=1&live=1"
    log = folder / "log.jsonl"
    run = start_process([*EDGESEG, "run", model, "--source", source, "--sink", folder / f"out{suffix}", "--sink", log])
    until = time.monotonic() + 60
    while not (log.exists() and log.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(seconds)
    run.send_signal(number)
    assert run.wait(20) == -number
    rows = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    segmented = rows[-1]["time"] - rows[0]["time"]
    assert segmented > seconds / 2
    return segmented - last_time(folder / f".out.part{suffix}")


@needs_av
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT])
def test_a_killed_recording_plays_up_to_the_last_second_and_is_kept_by_the_next_run(
    tmp_path, model, start_process, number, caplog
):
    missing = kill_while_recording(tmp_path, model, start_process, number, 2.3)
    assert missing < 1
    caplog.set_level(logging.WARNING)
    sink = record(f"{tmp_path}/out.mp4", 0.4)
    assert f"{tmp_path}/out.mp4 was left unfinished by a run that was killed; it is kept." in caplog.text
    assert f"{tmp_path}/out.mp4 exists and is kept: this recording will be {tmp_path}/out-2.mp4" in caplog.text
    assert last_time(tmp_path / "out.mp4") > 1.3 and len(read_back(tmp_path / "out-2.mp4")) == 10
    assert sink.files == [tmp_path / "out-2.mp4"] and list(tmp_path.glob(".out*")) == []


@needs_av
def test_a_killed_mkv_plays_too(tmp_path, model, start_process):
    assert kill_while_recording(tmp_path, model, start_process, signal.SIGKILL, 2.3, ".mkv") < 1
    assert record(f"{tmp_path}/out.mkv", 0.4).files == [tmp_path / "out-2.mkv"] and (tmp_path / "out.mkv").exists()


@needs_av
@pytest.mark.slow
def test_twenty_kills(tmp_path, model, start_process):
    missing = []
    for i in range(20):
        (tmp_path / str(i)).mkdir()
        missing.append(kill_while_recording(tmp_path / str(i), model, start_process, signal.SIGKILL, 2 + i * 0.137 % 1))
    print("seconds missing:", [round(m, 2) for m in missing])
    assert max(missing) < 1


SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[2])
from edgeseg.cli import signals
from edgeseg.stream import sinks
from test_stream_recording import LIVE, frame_image, result
with signals.stop_event() as stop, sinks.open(sys.argv[1], LIVE) as sink:
    stop.last_act = sink.rescue
    for i in range(10_000):  # never looks whether to stop
        sink.write(result(i, time.monotonic()), frame_image(i))
        if i == 50:
            print("recording", flush=True)
        if stop.is_set():
            print("stopping", flush=True)
        time.sleep(0.02)
"""


@needs_av
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_and_the_recording_keeps_its_name(tmp_path, start_process, second):
    words = [sys.executable, "-c", SCRIPT, tmp_path / "out.mp4", Path(__file__).parent]
    run = start_process(words, stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "recording\n"
    run.send_signal(signal.SIGINT)
    assert run.stdout.readline() == "stopping\n"
    run.send_signal(second)
    assert run.wait(10) == -second
    assert len(read_back(tmp_path / "out.mp4")) > 20 and [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_a_video_that_exists_is_never_replaced_unless_asked(tmp_path):
    for frames in (5, 6, 7):
        record(f"{tmp_path}/out.avi", frames / 25)
    assert [len(read_back(tmp_path / f"out{n}.avi")) for n in ("", "-2", "-3")] == [5, 6, 7]
    record(f"{tmp_path}/out.avi?overwrite=1", 8 / 25)
    assert [len(read_back(tmp_path / f"out{n}.avi")) for n in ("", "-2", "-3")] == [8, 6, 7]


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    with sinks.open(f"{tmp_path}/out.avi", LIVE) as sink:
        sink.write(result(0, 0.0), frame_image(0))
        (tmp_path / "out.avi").write_text("mine")
    assert (tmp_path / "out.avi").read_text() == "mine" and sink.files == [tmp_path / "out-2.avi"]


def test_two_runs_on_one_file(tmp_path):
    with (
        sinks.open(f"{tmp_path}/out.avi", LIVE),
        pytest.raises(FileError, match=r"Another run is writing .*out\.avi\.\nGive this one another name"),
    ):
        sinks.open(f"{tmp_path}/out.avi", LIVE)
    record(f"{tmp_path}/out.avi", 0.2)
    assert [p.name for p in tmp_path.iterdir()] == ["out.avi"]


def test_a_leftover_that_does_not_play_is_removed(tmp_path, caplog):
    (tmp_path / ".out.part.mp4").write_bytes(b"\0" * 1000)
    sinks.open(f"{tmp_path}/out.mp4", LIVE).close()
    assert list(tmp_path.iterdir()) == [] and "nothing in it plays" in caplog.text


@needs_av
def test_segments_are_named_by_their_start_and_old_ones_of_ours_are_removed(tmp_path):
    old = tmp_path / "out-20200101T000000Z.mp4"
    kept = [tmp_path / n for n in ("out-2020.mp4", "o-20200101T000000Z.mp4", "out-20200101T000000Z.avi", "out.mp4")]
    for path in (old, *kept):
        path.write_text("x")
    began = time.time()
    record(f"{tmp_path}/out.mp4?segment=2s&keep=24h", 5, start=time.monotonic() - 10)
    ours = sorted(p for p in tmp_path.iterdir() if p not in kept)
    assert not old.exists() and all(path.exists() for path in kept)
    assert [len(read_back(path)) for path in ours] == [50, 50, 25]
    starts = [time.strptime(path.name, "out-%Y%m%dT%H%M%SZ.mp4") for path in ours]
    assert abs(began - 10 - (time.mktime(starts[0]) - time.timezone)) < 3
    record(f"{tmp_path}/out.mp4?segment=2s&keep=1s", 1, start=time.monotonic())
    assert not any(path.exists() for path in ours[:2])


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("keep=24h", r"keep= without segment=\.\nOnly segments are removed"),
        ("segment=10", r"Option segment='10' .* is not usable\.\nExpected a time such as 30s, 10m, 24h or 7d"),
        ("segment=0s", r"Expected a time such as"),
        ("overwrite=maybe", r"Expected 1 or 0"),
    ],
)
def test_wrong_options(tmp_path, query, message):
    with pytest.raises(OptionError, match=message):
        sinks.open(f"{tmp_path}/out.mp4?{query}", LIVE)


@pytest.mark.parametrize("fps", [60.0, 25.0, 12.0, 4.4])
@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_the_rate_follows_the_camera_whatever_jitter(tmp_path, fps, suffix):
    """The camera's rate is not known when its file is opened; its frames come up to half a period early or late."""
    rng, count = np.random.default_rng(0), round(10 * fps)
    with sinks.open(f"{tmp_path}/out{suffix}", LIVE) as sink:
        at = np.sort(100 + (np.arange(count) + rng.uniform(-0.5, 0.5, count)) / fps)
        for i in range(count):
            sink.write(result(i, float(at[i])), frame_image(i))
    written = len(read_back(tmp_path / f"out{suffix}"))
    assert sink.lost == 0 and count <= written <= 1.02 * count
    assert last_time(tmp_path / f"out{suffix}") == pytest.approx(at[-1] - at[0], abs=0.3)


def test_what_a_constant_rate_leaves_out_is_counted_as_it_happens(tmp_path):
    """A camera that speeds up from 10 to 50 frames a second after its rate was measured."""
    times = [*np.arange(0, 4, 0.1), *np.arange(4, 8, 0.02)]
    with sinks.open(f"{tmp_path}/out.avi", LIVE) as sink:
        for i, at in enumerate(times):
            sink.write(result(i, 100 + at), frame_image(i))
        assert sink.lost > 100
    assert sink.lost + len(read_back(tmp_path / "out.avi")) == len(times)
    assert f"frames left out: {sink.lost}" in sink.warnings[0]


def test_a_folder_that_vanishes_is_an_error_of_ours(tmp_path):
    folder = tmp_path / "gone"
    sink = sinks.open(f"{folder}/out.avi", LIVE)
    sink.write(result(0, 0.0), frame_image(0))
    os.rename(folder, tmp_path / "elsewhere")  # noqa: PTH104
    with pytest.raises(EdgesegError, match=r"Cannot write .*gone: No such file or directory\.\nWas it removed"):
        sink.write(result(1, 1.0), frame_image(1))
    with pytest.raises(EdgesegError):
        sink.close()


def test_a_partial_file_gets_one_name_however_often_it_is_kept(tmp_path):
    part = PartialFile(tmp_path / "a.mp4")
    assert part.keep(tmp_path / "a.mp4") == tmp_path / "a.mp4" and part.keep(tmp_path / "a.mp4") is None
    part.discard()
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
