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
import numpy as np
import pytest
from stream_helpers import SPEC, clip, frame_image, segmenter

from edgeseg.errors import EdgesegError, OptionError, StreamError
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
def test_rtsp_tells_how_the_picture_moved(gstreamer, video):
    port = free_port()
    with rtsp(video, port, "--gop", "5"), sources.open(f"rtsp://127.0.0.1:{port}/live") as camera:
        camera.use_motion()
        got = frames(camera, 20)
        assert got[0].motion is None and all(f.motion and len(f.motion) == 1 for f in got[1:])
        by_themselves = sum(len(f.motion[0].blocks) == 0 for f in got[1:])
        assert 3 <= by_themselves <= 5 and all(f.motion[0].reference for f in got[1:])


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
def test_an_rtsp_camera_with_rare_key_frames_gives_its_first_one(gstreamer, video):
    """The server begins with a key frame; the next one comes after the test has ended. The same when it is back."""
    port = free_port()
    uri = f"rtsp://127.0.0.1:{port}/live#timeout=3"
    with SupervisedSource(lambda: sources.open(uri), uri, ReconnectPolicy(first_delay=0.1)) as camera:
        with rtsp(video, port, "--gop", "250"):
            frames(camera, 5, seconds=8)
        while camera.state == "STREAMING":
            camera.read(0.2)
        with rtsp(video, port, "--gop", "750"):
            frames(camera, 5, seconds=8)
        assert camera.reconnects == 1 and camera.damaged == 0


@real_time
def test_the_age_starts_at_the_capture_where_the_camera_says_when_that_was(gstreamer, video):
    """GStreamer's server sends RTCP reports by this machine's clock."""
    port = free_port()
    with rtsp(video, port):
        with sources.open(f"rtsp://127.0.0.1:{port}/live") as camera:
            assert {f.age_from for f in frames(camera, 5)} == {"arrival"}
        with sources.open(f"rtsp://127.0.0.1:{port}/live#clock=camera") as camera:
            got, until = [], time.monotonic() + 15
            while time.monotonic() < until and sum(f.age_from == "capture" for f in got) < 20:
                got += [frame] if (frame := camera.read(0.1)) is not None else []
    seen = [f.age_from for f in got]
    first = seen.index("capture")
    assert set(seen[:first]) <= {"arrival"} and set(seen[first:]) == {"capture"}
    assert np.diff([f.captured for f in got[first:]]).mean() == pytest.approx(0.04, abs=0.01)


@real_time
def test_a_camera_whose_clock_is_wrong_is_not_believed(gstreamer, video, monkeypatch):
    port, clock = free_port(), time.time
    with rtsp(video, port), sources.open(f"rtsp://127.0.0.1:{port}/live#clock=camera") as camera:
        monkeypatch.setattr("edgeseg.stream.sources.network.time.time", lambda: clock() + 3600)
        until = time.monotonic() + 15
        while not camera.warnings and time.monotonic() < until:
            frame = camera.read(0.1)
            assert frame is None or frame.age_from == "arrival"
    assert camera.warnings[0].endswith(
        "its clock differs from ours by about 3600 s; ages are counted from the arrival."
    )


@real_time
def test_an_rtsp_camera_whose_first_stream_is_sound(gstreamer, video):
    port = free_port()
    with rtsp(video, port, "--audio"):
        with sources.open(f"rtsp://127.0.0.1:{port}/live") as camera:
            got = frames(camera, 20)
            assert [stream.type for stream in camera._container.streams] == ["video"]
        assert np.diff([f.captured for f in got]).mean() == pytest.approx(0.04, abs=0.03)
        sound = sources.open(f"rtsp://127.0.0.1:{port}/sound")
        with sound, pytest.raises(StreamError, match=r"gives no video \(.*\)\.\nIt may be an audio or data stream"):
            sound.read(1)


def test_a_format_that_does_not_exist_is_refused_before_anything_runs():
    with pytest.raises(
        OptionError, match=r"Unknown format of udp://h:1#format=mpegst 'mpegst'\.\nDid you mean 'mpegts'"
    ):
        sources.open("udp://h:1#format=mpegst")


@contextlib.contextmanager
def sending(video: Path, port: int, *encoder: str):
    """A camera that sends MPEG-TS to a UDP port in real time, whether somebody listens or not."""
    command = ["ffmpeg", "-v", "quiet", "-re", "-stream_loop", "-1", "-i", str(video), "-an", *encoder, "-f", "mpegts"]
    sender = subprocess.Popen([*command, f"udp://127.0.0.1:{port}?pkt_size=1316"], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        sender.kill()
        sender.wait(10)


H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-sc_threshold", "0", "-g"]
MPEG4 = ["-c:v", "mpeg4", "-q:v", "5", "-sc_threshold", "1000000000", "-g"]


@real_time
@needs_ffmpeg
@pytest.mark.parametrize("codec", [H264, MPEG4], ids=["h264", "mpeg4"])
def test_a_camera_that_is_joined_between_key_frames_is_waited_for(video, codec):
    """A key frame every 6 s, which is longer than `connect`, `stall` and `timeout`: shown as waiting, not broken."""
    port, states = free_port(), []
    policy = ReconnectPolicy(connect=2, stall=1)
    uri = f"udp://127.0.0.1:{port}#timeout=1"
    with sending(video, port, *codec, "150"):
        time.sleep(2)
        camera = SupervisedSource(lambda: sources.open(uri), uri, policy, lambda change: states.append(change.state))
        with camera:
            got = frames(camera, 20, seconds=15)
    assert [s for s in states if s != "STOPPED"] == ["CONNECTING", "WAITING", "STREAMING"]
    assert camera.reconnects == 0 and camera.damaged == 0
    assert np.abs(got[0].image.astype(int) - frame_image(0, 240, 320)).min() < 30  # whole images, not gray ones


@real_time
@needs_ffmpeg
def test_a_camera_that_never_sends_a_key_frame(video, monkeypatch):
    monkeypatch.setattr("edgeseg.stream.sources.network.KEY_FRAME_SECONDS", 2.0)
    port = free_port()
    with sending(video, port, *H264, "100000"):
        time.sleep(2)
        late = pytest.raises(StreamError, match=r"has sent no key frame for 2 s\.\nSet the camera's key frame interval")
        with sources.open(f"udp://127.0.0.1:{port}#timeout=1") as camera, late:
            frames(camera, 1)


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
    """An MJPEG camera; `script` gives the bytes to send, part after part, each behind its own head."""

    def __init__(self, script, status: int = 200, head: str = "--b\r\nContent-Type: image/jpeg", first: str = ""):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
                self.end_headers()
                with contextlib.suppress(OSError):
                    for i, part in enumerate(script()):
                        start = first if first and i == 0 else head
                        lines = f"{start}\r\nContent-Length: {len(part)}\r\n\r\n".encode()
                        self.wfile.write(lines + part + b"\r\n" if part else b"")

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


class Files(Mjpeg):
    """A web server whose every answer is what `content(number of the request)` gives."""

    def __init__(self, content, content_type: str):
        super().__init__(list)
        self.requests = requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                requests.append(self.path)
                data = content(len(requests) - 1)
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server.RequestHandlerClass = Handler


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


@pytest.mark.parametrize(
    "quirk",
    [
        {"head": "--b\r\nContent-Type: image/jpg"},
        {"first": "Content-Type: image/jpeg"},
        {"first": "Content-Type: image/jpg", "head": "--other\r\nContent-Type: image/jpg"},
    ],
    ids=["image/jpg", "no first boundary", "both"],
)
def test_mjpeg_that_is_not_quite_multipart(quirk):
    with Mjpeg(lambda: (jpeg(i) for i in range(20)), **quirk) as camera:
        assert until_the_end(sources.open(camera.uri)).count((120, 160)) >= 19


@pytest.mark.parametrize("path", ["/snapshot.jpg", "/cgi-bin/snapshot.cgi?channel=1", "/image"])
@pytest.mark.parametrize("suffix, content_type", [(".jpg", "image/jpeg"), (".png", "image/png")])
def test_a_snapshot_is_fetched_again_and_again(path, suffix, content_type):
    def content(i: int) -> bytes:
        return cv2.imencode(suffix, frame_image(i, 120, 160))[1].tobytes()

    with Files(content, content_type) as server:
        begin = time.monotonic()
        uri = server.uri.replace("/stream", path)
        with sources.open(f"{uri}#every=0.2") as camera:
            got = frames(camera, 4)
        assert time.monotonic() - begin >= 3 * 0.2
    assert [f.index for f in got] == list(range(4)) and len(server.requests) == 4
    for i, frame in enumerate(got):
        assert np.abs(frame.image.astype(int) - frame_image(i, 120, 160)).mean() < 10


def test_a_supervised_snapshot_that_is_fetched_rarely_is_not_stalled():
    """The same image every second, for longer than `stall` and `frozen` allow a stream to be silent or still."""
    data = jpeg(0)
    with Files(lambda _: data, "image/jpeg") as server:
        uri = f"{server.uri}#every=1"
        policy = ReconnectPolicy(stall=0.4, frozen=0.5)
        with SupervisedSource(lambda: sources.open(uri), uri, policy) as camera:
            assert [f.index for f in frames(camera, 4)] == [0, 1, 2, 3]
            assert camera.reconnects == 0 and camera.fps == 1.0
        assert set(camera.visits) == {"CONNECTING", "STREAMING", "STOPPED"}


def ffmpeg_clip(path: Path, *options: str, frames: int = 12) -> Path:
    made = [
        "ffmpeg",
        "-v",
        "error",
        "-y",
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=160x96:rate=12",
        "-frames:v",
        str(frames),
    ]
    subprocess.run([*made, *options, str(path)], check=True)
    return path


@needs_ffmpeg
def test_a_short_clip_over_http_gives_all_its_frames(tmp_path):
    data = ffmpeg_clip(tmp_path / "a.ts", "-c:v", "libx264", "-g", "250").read_bytes()
    with Files(lambda _: data, "video/mp2t") as server:
        assert len(until_the_end(sources.open(server.uri))) == 12


@needs_ffmpeg
@pytest.mark.parametrize("degrees, shape", [(90, (160, 96, 3)), (180, (96, 160, 3)), (270, (160, 96, 3))])
def test_rotation_is_the_same_from_a_file_and_from_the_network(tmp_path, degrees, shape):
    upright = ffmpeg_clip(tmp_path / "a.mp4", "-c:v", "libx264", "-pix_fmt", "yuv420p")
    rotated = tmp_path / "b.mp4"
    tag = ["-c", "copy", "-metadata:s:v", f"rotate={degrees}"]
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(upright), *tag, str(rotated)], check=True)
    with Files(lambda _: rotated.read_bytes(), "video/mp4") as server, sources.open(server.uri) as camera:
        (received,) = frames(camera, 1)
    with sources.open(str(rotated)) as file, sources.open(str(upright)) as stored:
        (read,), (plain,) = frames(file, 1), frames(stored, 1)
    with sources.open(str(rotated)) as file:
        file.use_motion()
        (moving,) = frames(file, 1)
    assert moving.image.shape == shape and np.abs(moving.image.astype(int) - read.image).mean() < 3
    assert received.image.shape == read.image.shape == shape
    assert np.abs(received.image.astype(int) - read.image).mean() < 3
    assert (
        np.abs(np.rot90(plain.image, degrees // 90).astype(int) - read.image).mean() < 3
        or np.abs(np.rot90(plain.image, -degrees // 90).astype(int) - read.image).mean() < 3
    )


TEN_BITS = ["-c:v", "libx265", "-x265-params", "log-level=none", "-pix_fmt", "yuv420p10le"]
COLORS_2020 = ["-color_primaries", "bt2020", "-colorspace", "bt2020nc", "-color_trc"]
MATRIX = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-bsf:v"]


@needs_ffmpeg
@pytest.mark.parametrize(
    "options",
    [
        [*TEN_BITS, *COLORS_2020, "arib-std-b67"],
        [*TEN_BITS, *COLORS_2020, "smpte2084"],
        [*MATRIX, "h264_metadata=matrix_coefficients=10:transfer_characteristics=14:colour_primaries=9"],
        [*MATRIX, "h264_metadata=matrix_coefficients=14:transfer_characteristics=18:colour_primaries=9"],
        [*MATRIX, "h264_metadata=matrix_coefficients=8"],
    ],
    ids=["HLG", "PQ", "BT.2020 constant luminance", "ICtCp", "YCgCo"],
)
def test_colors_of_many_kinds_are_read(tmp_path, options):
    """From a file, also with its motion, and from the network: a picture like the source's, and no error."""
    path = ffmpeg_clip(tmp_path / "a.mp4", *options)
    junk = [np.full((96, 160, 3), 7, np.uint8) for _ in range(100)]  # what a picture that is not written would show
    del junk
    with sources.open(str(path)) as file:
        read = frames(file, 12)
    with sources.open(str(path)) as file:
        file.use_motion()
        moving = frames(file, 12)
    with Files(lambda _: path.read_bytes(), "video/mp4") as server, sources.open(server.uri) as camera:
        received = frames(camera, 12)
    for image in (read[5].image, moving[5].image, received[5].image):
        assert image.shape == (96, 160, 3) and image.std() > 30


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


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"], ids=["cut off", "with an end"])
def test_half_jpegs_are_damaged_and_not_shown(share, end):
    def script():
        for i in range(40):
            whole = jpeg(i)
            yield whole[: int(share * len(whole))] + end if 10 <= i < 15 else whole

    with Mjpeg(script) as camera:
        source = sources.open(camera.uri)
        got = until_the_end(source)
    assert source.damaged == 5 and len(got) >= 33 and source.warnings == []


def test_a_camera_whose_jpegs_all_have_an_error_is_shown_all_the_same():
    def script():
        for i in range(60):
            whole = jpeg(i)
            yield whole[: int(0.95 * len(whole))] + b"\xff\xd9"

    with Mjpeg(script) as camera:
        source = sources.open(camera.uri)
        assert len(frames(source, 20)) == 20 and "its JPEGs have errors" in source.warnings[0]
        source.close()


@needs_ffmpeg
def test_concealed_damage_in_h264_is_counted(tmp_path):
    """Slices that are cut short: the decoder makes up the rest of the picture."""
    import av

    path = ffmpeg_clip(tmp_path / "a.ts", "-c:v", "libx264", "-g", "5", "-bf", "0", "-tune", "zerolatency")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size > 2000 and p.pos][2:8:3]
        for packet in packets:  # a part of the TS packets that carry it becomes padding
            for at in range(packet.pos + 188 * 6, packet.pos + packet.size // 188 * 188, 188):
                data[at + 1], data[at + 2] = 0x1F, 0xFF
    with Files(lambda _: bytes(data), "video/mp2t") as server, sources.open(server.uri) as camera:
        got = until_the_end(camera)
    assert 1 <= camera.damaged <= 2 * len(packets) and len(got) >= 5


@needs_ffmpeg
def test_pictures_of_h264_that_never_came_are_counted(tmp_path):
    import av

    path = ffmpeg_clip(tmp_path / "a.ts", "-c:v", "libx264", "-g", "50", "-bf", "0", "-refs", "1", frames=60)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        at = [packet.pos for packet in container.demux(video=0) if packet.size]
    for picture in (30, 44):
        for packet in range(at[picture], at[picture + 1], 188):
            data[packet + 1], data[packet + 2] = 0x1F, 0xFF  # padding
    with Files(lambda _: bytes(data), "video/mp2t") as server, sources.open(server.uri) as camera:
        got = until_the_end(camera)
    assert camera.damaged == 2 and 50 <= len(got) <= 58


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
