"""Sinks that talk to others (HTTP), and disks that are full."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from stream_helpers import SPEC, clip, frame_image, read_back, segmenter

from edgeseg.errors import OptionError, StreamError
from edgeseg.result import Frame, Result
from edgeseg.stream import loop, sinks, sources
from edgeseg.stream.reconnect import ReconnectingSink
from edgeseg.stream.sinks.jsonl import JsonLines

INFO = sinks.Info(SPEC, 25.0, live=True, name="front")


def result(i: int) -> Result:
    classmap = np.zeros((SPEC.height, SPEC.width), np.uint8)
    classmap[: SPEC.height // 4] = 3
    return Result(Frame(frame_image(i), i), classmap, {"infer": 0.0125})


def test_json_lines_are_added_to_the_file(tmp_path):
    for i in range(2):
        with sinks.open(str(tmp_path / "log.jsonl"), INFO) as sink:
            sink.write(result(i), None)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1]
    assert lines[0]["shares"] == {"road": 0.75, "car": 0.25} and lines[0]["ms"] == {"infer": 12.5}
    assert lines[0]["stream"] == "front" and lines[0]["size"] == [192, 128]
    assert abs(lines[0]["time"] - time.time()) < 60


def test_json_lines_rotate(tmp_path):
    with sinks.open(f"{tmp_path}/log.jsonl?rotate_mb=0.001", INFO) as sink:
        for i in range(30):
            sink.write(result(i), None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.jsonl", "log.jsonl.1"]
    assert all(p.stat().st_size < 2000 for p in tmp_path.iterdir())


def test_json_lines_that_are_moved_or_removed_are_begun_anew(tmp_path):
    log = tmp_path / "logs" / "log.jsonl"
    with sinks.open(str(log), INFO) as sink:
        sink.write(result(0), None)
        log.rename(tmp_path / "log.1")
        sink.write(result(1), None)
        assert [len(p.read_text().splitlines()) for p in (log, tmp_path / "log.1")] == [1, 1]
        log.unlink()
        log.parent.rmdir()
        with pytest.raises(StreamError, match=r"Cannot write .*: No such file or directory\.\nWas its folder removed"):
            sink.write(result(2), None)


def test_json_lines_through_a_pipe(tmp_path):
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    with pytest.raises(StreamError, match=r"Cannot write .*\nNobody reads this pipe"):
        sinks.open(str(pipe), INFO)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        until = time.monotonic() + 10
        while True:
            try:
                sink = sinks.open(str(pipe), INFO)
                break
            except StreamError:
                assert time.monotonic() < until
        with sink:
            sink.write(result(7), None)
        assert json.loads(reader.stdout.read())["frame"] == 7


def test_a_folder_that_vanishes_is_made_again(tmp_path):
    """Whatever a sink raises, an OSError of the system included, is retried and counted."""
    uri = str(tmp_path / "gone" / "log.jsonl")
    with ReconnectingSink(sinks.open(uri, INFO), lambda part: sinks.open(uri, INFO), 0.1) as sink:
        sink.write(result(0), None)
        shutil.rmtree(tmp_path / "gone")
        sink.write(result(1), None)
        assert sink.lost == 1
        time.sleep(0.15)
        sink.write(result(2), None)
    assert [json.loads(line)["frame"] for line in Path(uri).read_text().splitlines()] == [2]
    assert "failed 1 times and lost 1 results" in sink.warnings[0]


def test_any_error_of_a_sink_is_its_own(caplog):
    errors = [FileNotFoundError(2, "No such file or directory", "/mnt/usb"), ValueError("rtsp://u:secret@h odd")]

    class Odd(sinks.Sink):
        def write(self, result, image):
            if errors:
                raise errors.pop(0)

    sink = ReconnectingSink(Odd(), lambda part: Odd(), 0.0)
    for i in range(3):
        sink.write(result(i), None)
    assert sink.lost == 2 and sink.failures == 2
    assert "No such file or directory: /mnt/usb." in caplog.text
    sink.close()
    assert "ValueError" in sink.warnings[0] and "secret" not in sink.warnings[0]


def test_a_browser_sees_the_newest_frames():
    with sinks.open("mjpeg://127.0.0.1:0", INFO) as sink:
        web = f"http://127.0.0.1:{sink.port}"
        assert b"<img src=/stream" in urllib.request.urlopen(f"{web}/", timeout=5).read()
        sink.write(result(1), frame_image(1))
        shot = urllib.request.urlopen(f"{web}/frame.jpg", timeout=5).read()
        shown = cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(shown.astype(int) - frame_image(1)).mean() < 6
        viewer = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=5)
        viewer.request("GET", "/stream")
        answer = viewer.getresponse()
        assert answer.getheader("Content-Type") == "multipart/x-mixed-replace; boundary=frame"
        for i in (2, 3):
            sink.write(result(i), frame_image(i))
            head = [answer.readline() for _ in range(4)]
            assert head[0] == b"--frame\r\n" and head[3] == b"\r\n"
            data = answer.read(int(head[2].split(b":")[1]) + 2)
            assert data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9\r\n")
        viewer.close()


def test_a_viewer_that_does_not_read_delays_nobody():
    big = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), np.uint8)
    with sinks.open("mjpeg://127.0.0.1:0", INFO) as sink:
        lazy = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=5)
        lazy.request("GET", "/stream")
        lazy.getresponse()
        begin = time.monotonic()
        for i in range(200):
            sink.write(result(i), big)
        assert time.monotonic() - begin < 1
        lazy.close()


def test_a_port_in_use_is_refused_before_anything_runs():
    in_use = pytest.raises(
        OptionError, match=r"Cannot serve images on 127\.0\.0\.1:\d+: Address already in use.\n.*another one"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken, in_use:
        sinks.open(f"mjpeg://127.0.0.1:{taken.getsockname()[1]}", INFO)
    with pytest.raises(OptionError, match=r"has no port"):
        sinks.open("mjpeg://127.0.0.1", INFO)


@pytest.fixture
def hook():
    """A real HTTP server; `posts` is what it got, `status` what it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.posts.append((self.path, self.headers.get("Authorization"), body))
            self.send_response(server.status)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.posts, server.status = [], 200
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_webhook_gets_every_nth_result(hook):
    with sinks.open(f"webhook+http://bot:s%40fe@127.0.0.1:{hook.server_port}/seg?room=1#every=10", INFO) as sink:
        for i in range(25):
            sink.write(result(i), None)
    assert [post[2]["frame"] for post in hook.posts] == [0, 10, 20]
    assert hook.posts[0][:2] == ("/seg?room=1", "Basic Ym90OnNAZmU=")
    assert sink.warnings == []


@pytest.mark.parametrize("status", [500, 302])
def test_a_webhook_that_answers_wrongly_is_counted(hook, status):
    hook.status = status
    with sinks.open(f"webhook+http://bot:secret@127.0.0.1:{hook.server_port}/#every=1", INFO) as sink:
        for i in range(3):
            sink.write(result(i), None)
    assert f"3 of 3 posts failed (3x HTTP {status})" in sink.warnings[0] and "secret" not in sink.warnings[0]


def test_a_dead_webhook_is_seen_at_once_and_so_is_its_recovery(hook, caplog):
    caplog.set_level("INFO")
    hook.status = 500
    with sinks.open(f"webhook+http://bot:secret@127.0.0.1:{hook.server_port}/t0ken/#every=1", INFO) as sink:
        for i in range(3):
            sink.write(result(i), None)
        until = time.monotonic() + 5
        while sink.lost < 3 and time.monotonic() < until:
            time.sleep(0.01)
        assert sink.lost == 3 and caplog.text.count("takes no posts: HTTP 500") == 1, "once, not for each"
        hook.status = 200
        sink.write(result(3), None)
        while "takes posts again; lost so far: 3" not in caplog.text and time.monotonic() < until:
            time.sleep(0.01)
        assert "takes posts again; lost so far: 3" in caplog.text
    assert sink.lost == 3 and "secret" not in caplog.text


def test_a_webhook_that_never_answers_delays_nothing():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        begin = time.monotonic()
        with sinks.open(f"webhook+http://127.0.0.1:{mute.getsockname()[1]}/#every=1&timeout=0.3", INFO) as sink:
            for i in range(100):
                sink.write(result(i), None)
            assert time.monotonic() - begin < 0.2
        assert time.monotonic() - begin < 2
    assert "posts failed" in sink.warnings[0] and "not sent" in sink.warnings[0]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def noise(folder, frames: int = 60):
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(frames):
        cv2.imwrite(str(folder / f"{i:03d}.jpg"), rng.integers(0, 255, (360, 640, 3), np.uint8))
    return folder


def test_a_disk_that_fills_up_ends_a_file_run_and_keeps_what_was_written(tmp_path, small_disk):
    out = small_disk / "out.avi"
    sink = sinks.open(str(out), sinks.Info(SPEC, 25.0))
    summary = loop.run(segmenter(), sources.open(str(noise(tmp_path / "in"))), [sink], overlay=False)
    assert isinstance(summary.error, StreamError) and "is full" in summary.error.what
    assert 3 < len(read_back(out)) < 60


def test_a_full_disk_is_refused_before_anything_runs(small_disk):
    with (small_disk / "fill").open("wb") as fill, pytest.raises(OSError, match="No space"):
        fill.write(bytes(8 << 20))
    with pytest.raises(StreamError, match=r"The disk of .* is full\.\nFree some space"):
        sinks.open(str(small_disk / "out.mp4"), INFO)
    (small_disk / "fill").unlink()


def test_json_lines_on_a_full_device():
    log = JsonLines(Path("/dev/full"), INFO)
    with pytest.raises(StreamError, match=r"Cannot write /dev/full: No space left on device"):
        log.write(result(0), None)


def test_a_live_run_outlives_a_disk_that_fills_up(tmp_path, small_disk):
    """The video is finished when the disk is full; the frames go on to the other sink; a second part starts later."""
    uri = str(small_disk / "out.avi")
    live = sinks.Info(SPEC, live=True)
    video = ReconnectingSink(
        sinks.open(uri, live), lambda part: sinks.open(uri, dataclasses.replace(live, part=part)), 0.1
    )
    log = sinks.open(str(tmp_path / "log.jsonl"), INFO)
    source = sources.open(f"{noise(tmp_path / 'in')}?fps=60")
    summary = loop.run(segmenter(), source, [video, log], overlay=False)
    assert summary.error is None and len((tmp_path / "log.jsonl").read_text().splitlines()) > 40
    written = len(read_back(small_disk / "out.avi"))
    assert written > 3 and written + video.lost + summary.drops.get("source", 0) >= 59
    assert video.failures > 0 and any("is full" in w for w in summary.warnings)


def test_a_clip_to_two_sinks_at_once(tmp_path):
    source = sources.open(str(clip(tmp_path / "a.avi", 20)))
    outputs = [sinks.open(str(tmp_path / name), sinks.Info(SPEC, 25.0)) for name in ("o.mp4", "o.jsonl")]
    summary = loop.run(segmenter(), source, outputs)
    assert summary.error is None and len(read_back(tmp_path / "o.mp4")) == 20
