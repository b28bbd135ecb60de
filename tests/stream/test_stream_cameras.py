"""Real network streams on loopback: GStreamer's RTSP server, ffmpeg's MPEG-TS, MJPEG from http.server."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import pytest
from stream_helpers import SPEC, clip, frame_image, segmenter

from edgeseg.errors import EdgesegError, StreamError
from edgeseg.stream import loop, sinks, sources
from edgeseg.stream.sources import EndOfStream, Refused
from edgeseg.stream.supervise import ReconnectPolicy, SupervisedSource

pytest.importorskip("av", reason="network cameras need PyAV: pip install 'edgeseg[camera]'")
INFO = sinks.Info(SPEC)
SERVER = Path(__file__).with_name("rtsp_server.py")
PYTHON = "/usr/bin/python3"
PROBE = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
# Real servers, processes and codecs run in real time: where all cores are taken, one may miss its time-out.
real_time = pytest.mark.flaky(reruns=2, reruns_delay=1)
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    return clip(tmp_path_factory.mktemp("video") / "video.avi", frames=750, size=(240, 320))


@contextlib.contextmanager
def rtsp(video: Path, port: int, *options: str):
    """A running RTSP server; yields the process, which obeys words on its standard input."""
    command = [PYTHON, str(SERVER), str(port), str(video), *options]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout.readline().strip() == "ready"
        yield server
    finally:
        server.kill()
        server.wait(10)


@pytest.fixture(scope="session")
def gstreamer():
    if not Path(PYTHON).exists() or subprocess.run([PYTHON, "-c", PROBE], capture_output=True).returncode:
        pytest.skip("GStreamer's RTSP server is not installed (gir1.2-gst-rtsp-server-1.0, python3-gi)")


def frames(source, count: int, seconds: float = 15.0) -> list:
    got, until = [], time.monotonic() + seconds
    while len(got) < count and time.monotonic() < until:
        if (frame := source.read(0.1)) is not None:
            got.append(frame)
    assert len(got) == count
    return got


@real_time
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp(gstreamer, video, transport):
    port = free_port()
    with rtsp(video, port), sources.open(f"rtsp://127.0.0.1:{port}/live#transport={transport}") as camera:
        got = frames(camera, 20)
        assert camera.live and got[0].image.shape == (240, 320, 3)
        assert [f.index for f in got] == list(range(20))


@real_time
def test_rtsp_credentials(gstreamer, video):
    port = free_port()
    with rtsp(video, port, "--user", "admin", "--password", "p@ss"):
        with sources.open(f"rtsp://admin:p%40ss@127.0.0.1:{port}/live") as camera:
            frames(camera, 1)
        with sources.open(f"rtsp://admin:guess@127.0.0.1:{port}/live") as camera, pytest.raises(Refused) as refused:
            camera.read(1)
        assert refused.value.what == f"rtsp://***@127.0.0.1:{port}/live refuses these credentials."
        gone = sources.open(f"rtsp://admin:p%40ss@127.0.0.1:{port}/none")
        with gone, pytest.raises(StreamError, match=r"does not exist on that camera \(404\)"):
            gone.read(1)


@real_time
def test_an_rtsp_camera_that_freezes_and_dies_comes_back(gstreamer, video):
    """The whole loop on a real server: freeze (connected, silent), then kill and restart; results go on."""
    port, stop, states = free_port(), threading.Event(), []
    policy = ReconnectPolicy(stall=0.6, first_delay=0.1, longest_delay=0.5)
    uri = f"rtsp://127.0.0.1:{port}/live#timeout=3"
    camera = SupervisedSource(
        lambda: sources.open(uri), uri, policy, lambda change: states.append(change.state), seed=1
    )
    run = loop.Run(segmenter(), [loop.Stream(camera, [sinks.open("null://", INFO)])], stop=stop)
    summaries: list = []
    thread = threading.Thread(target=lambda: summaries.append(run.go()))

    def results(more: int) -> None:
        goal, until = run.summary().frames + more, time.monotonic() + 20
        while run.summary().frames < goal:
            assert time.monotonic() < until, (states, run.summary())
            time.sleep(0.02)

    with rtsp(video, port) as server:
        thread.start()
        results(10)
        server.stdin.write("freeze\n")
        server.stdin.flush()
        until = time.monotonic() + 10
        while "STALLED" not in states:
            assert time.monotonic() < until
            time.sleep(0.02)
        server.stdin.write("thaw\n")
        server.stdin.flush()
        results(10)
    with rtsp(video, port):
        results(10)
    stop.set()
    thread.join(20)
    summary = summaries[0]
    assert summary.error is None and summary.result == "stopped"
    assert camera.reconnects >= 2 and {"STALLED", "BROKEN", "BACKING_OFF"} <= set(states)
    assert summary.streams[0].state == "STOPPED" and summary.stages["age"].p50 < 500


@real_time
@needs_ffmpeg
def test_mpeg_ts_over_udp(video):
    port = free_port()
    command = ["ffmpeg", "-v", "quiet", "-re", "-stream_loop", "-1", "-i", str(video), "-c:v", "mpeg2video", "-g", "10"]
    sender = subprocess.Popen([*command, "-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316"])
    try:
        with sources.open(f"udp://127.0.0.1:{port}#timeout=10") as camera:
            assert frames(camera, 10)[0].image.shape == (240, 320, 3)
    finally:
        sender.kill()
        sender.wait(10)
    silent = sources.open(f"udp://127.0.0.1:{port}#timeout=0.5")
    with silent, pytest.raises(StreamError, match=r"sent nothing for 0\.5 s\.\nIs it on, and reachable\?"):
        silent.read(1)


@real_time
@needs_ffmpeg
def test_another_codec_mid_stream(video):
    """MPEG-2 turns into H.264 at another size on the same port: noticed, reconnected, goes on."""
    port = free_port()
    policy = ReconnectPolicy(stall=2, first_delay=0.1, longest_delay=0.3)
    uri = f"udp://127.0.0.1:{port}#timeout=2"
    camera = SupervisedSource(lambda: sources.open(uri), uri, policy, seed=0)
    start = ["ffmpeg", "-v", "quiet", "-re", "-stream_loop", "-1", "-i", str(video), "-g", "10"]
    codecs = (["-c:v", "mpeg2video"], ["-c:v", "libx264", "-preset", "ultrafast", "-s", "160x120"])
    with camera:
        for codec, shape in zip(codecs, ((240, 320, 3), (120, 160, 3))):
            sender = subprocess.Popen([*start, *codec, "-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316"])
            try:
                until = time.monotonic() + 20
                while (frame := camera.read(0.1)) is None or frame.image.shape != shape:
                    assert time.monotonic() < until, camera.visits
            finally:
                sender.kill()
                sender.wait(10)


class Mjpeg:
    """An MJPEG camera; `script` gives the bytes to send, part after part."""

    def __init__(self, script, status: int = 200):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
                self.end_headers()
                with contextlib.suppress(OSError):
                    for part in script():
                        head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(part)}\r\n\r\n".encode()
                        self.wfile.write(head + part + b"\r\n" if part else b"")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server.server_port}/stream"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def jpeg(i: int, height: int = 120, width: int = 160) -> bytes:
    return cv2.imencode(".jpg", frame_image(i, height, width))[1].tobytes()


def until_the_end(source) -> list:
    got = []
    with source, pytest.raises((EndOfStream, StreamError)) as end:
        while True:
            if (frame := source.read(0.5)) is not None:
                got.append(frame.image.shape[:2])
    assert end.type is EndOfStream or "broke off" in str(end.value)
    return got


def test_mjpeg_over_http_ends_and_changes_its_size():
    def script():
        yield from (jpeg(i) for i in range(12))
        yield from (jpeg(i, 60, 80) for i in range(12))

    with Mjpeg(script) as camera:
        got = until_the_end(sources.open(camera.uri))
    assert got.count((120, 160)) >= 11 and got.count((60, 80)) >= 11


def test_damaged_packets_are_skipped_and_counted():
    def script():
        for i in range(40):
            yield b"\xff\xd8" + bytes(200) + b"\xff\xd9" if 10 <= i < 15 else jpeg(i)

    with Mjpeg(script) as camera:
        source = sources.open(camera.uri)
        assert len(until_the_end(source)) >= 30
    assert 4 <= source.damaged <= 6


def test_a_frame_that_grows_over_the_limit_mid_stream():
    def script():
        yield from (jpeg(i) for i in range(12))
        yield from (jpeg(i, 600, 800) for i in range(4))

    too_large = pytest.raises(StreamError, match=r"over the limit of 0\.1 megapixels\.\n.*max_megapixels")
    with Mjpeg(script) as camera, sources.open(f"{camera.uri}#max_megapixels=0.1") as source, too_large:
        while True:
            source.read(0.5)


@pytest.mark.parametrize(
    ("script", "status", "message"),
    [
        (lambda: [b""], 200, r"sends no video that can be read"),
        (lambda: [b"<html>not a camera</html>"] * 3, 200, r"no video|cannot be decoded|cannot be read|codec"),
        (lambda: [b""], 401, r"refuses these credentials"),
        (lambda: [b""], 404, r"does not exist on that camera \(404\)"),
        (lambda: [b""], 500, r"cannot be read: "),
    ],
)
def test_cameras_that_answer_wrongly(script, status, message):
    with Mjpeg(script, status) as camera:
        uri = camera.uri.replace("//", "//u:secret@")
        with pytest.raises((EdgesegError, EndOfStream)) as caught, sources.open(uri) as source:
            while True:
                source.read(0.5)
    text = str(caught.value) if isinstance(caught.value, EdgesegError) else "no video"
    assert "secret" not in text
    assert re.search(message, text), text


def test_nobody_listens():
    refused = pytest.raises(
        StreamError, match=r"rtsp://\*\*\*@127\.0\.0\.1:\d+/live cannot be read: Connection refused"
    )
    with sources.open(f"rtsp://u:secret@127.0.0.1:{free_port()}/live") as source, refused:
        source.read(1)


def test_a_server_that_accepts_and_says_nothing():
    silent = pytest.raises(StreamError, match=r"sent nothing for 0\.5 s")
    mute = socket.create_server(("127.0.0.1", 0))
    with mute, sources.open(f"http://127.0.0.1:{mute.getsockname()[1]}/x#timeout=0.5") as source, silent:
        source.read(1)


def test_without_av_the_message_names_the_extra():
    code = "import sys; sys.modules['av'] = None\nfrom edgeseg.stream import sources\nsources.open('rtsp://u:secret@cam/x')"
    err = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert "Reading rtsp://***@cam/x needs the package av" in err and "edgeseg[camera]" in err
    assert "u:secret" not in err.rsplit("MissingPackage", 1)[1]


def test_live_null_sink_from_mjpeg():
    with Mjpeg(lambda: (jpeg(i) for i in range(30))) as camera:
        source = sources.open(camera.uri)
        summary = loop.run(segmenter(), source, [sinks.open("null://", INFO)])
    assert "broke off" in str(summary.error) and summary.frames + summary.drops.get("source", 0) >= 29
