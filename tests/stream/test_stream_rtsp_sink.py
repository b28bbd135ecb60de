"""The rtsp:// sink against a real server that takes streams (GStreamer's, in RECORD mode) and against broken ones."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from stream_helpers import SPEC, clip, frame_image, segmenter

from edgeseg.errors import OptionError, StreamError
from edgeseg.result import Frame, Result
from edgeseg.stream import loop, sinks, sources
from edgeseg.stream.reconnect import ReconnectingSink
from edgeseg.stream.rtsp import authorization, challenge
from edgeseg.stream.sinks import rtsp

pytest.importorskip("av", reason="publishing needs PyAV: pip install 'edgeseg[camera]'")
INFO = sinks.Info(SPEC, 25.0, live=True)
FILE = sinks.Info(SPEC, 25.0)
BIG = frame_image(0)
SERVER = Path(__file__).with_name("rtsp_record_server.py")
PYTHON = "/usr/bin/python3"
PROBE = """import gi; gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
assert all(map(Gst.ElementFactory.find, ("rtph264depay", "h264parse", "avdec_h264", "pngenc", "multifilesink")))"""
# A real server decodes in real time: where all cores are taken, it may miss a time-out.
real_time = pytest.mark.flaky(reruns=2, reruns_delay=1)
WRONG = r"rtsp://\*\*\*@127\.0\.0\.1:\d+/live "


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def gstreamer():
    if not Path(PYTHON).exists() or subprocess.run([PYTHON, "-c", PROBE], capture_output=True).returncode:
        pytest.skip("GStreamer's RTSP server, its bindings or its H.264 decoder are not installed")


@contextlib.contextmanager
def server(folder: Path, port: int, *options: str):
    """A running server that decodes what it gets into `folder`; yields its process."""
    folder.mkdir(exist_ok=True)
    command = [PYTHON, str(SERVER), str(port), str(folder), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout.readline().strip() == "ready"
        yield process
    finally:
        process.kill()
        process.wait(10)


def log(folder: Path) -> list[list[str]]:
    """[session, number, WIDTHxHEIGHT, ms] of every frame that arrived."""
    file = folder / "log"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def wait(condition, seconds: float = 20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def result(image, i: int = 0, captured: float | None = None) -> Result:
    when = time.monotonic() if captured is None else captured
    return Result(Frame(image, i, when), np.zeros((SPEC.height, SPEC.width), np.uint8), {})


def publish(sink, images) -> None:
    begin = time.monotonic()
    for i, image in enumerate(images):
        sink.write(result(image, i, begin + i / 25), image)


@real_time
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_viewers_see_the_overlay(gstreamer, tmp_path, transport):
    """The frames of a run arrive and decode to the images that a folder sink wrote of them.

    This server throws away what it has not yet decoded when the session ends, so the last frames may be missing.
    """
    port = free_port()
    with server(tmp_path / "seen", port):
        uri = f"rtsp://127.0.0.1:{port}/live#transport={transport}&bitrate_kbps=20000"
        outputs = [sinks.open(u, sinks.Info(SPEC, 25.0)) for u in (uri, f"{tmp_path}/kept/?overlay=1&masks=0")]
        summary = loop.run(segmenter(seconds=0.02), sources.open(str(clip(tmp_path / "a.avi", 20))), outputs)
        assert summary.error is None and summary.frames == 20 and summary.warnings == ()
        wait(lambda: len(log(tmp_path / "seen")) > 16)
    kept = sorted((tmp_path / "kept").rglob("*.*g"))
    seen = sorted((tmp_path / "seen").glob("*.png"))[:16]  # the last one may not be whole yet
    assert len(kept) == 20 and len(seen) == 16
    for i, (a, b) in enumerate(zip(kept, seen)):
        expected, got = cv2.imread(str(a)).astype(int), cv2.imread(str(b)).astype(int)
        assert np.abs(expected - got).mean() < 6, i
        assert np.abs(frame_image(i) - got).mean() > 12, i  # without its overlay


@real_time
def test_a_changed_frame_size_is_announced_again(gstreamer, tmp_path):
    port = free_port()
    with server(tmp_path, port), sinks.open(f"rtsp://127.0.0.1:{port}/live", INFO) as sink:
        for frames, size in ((5, (128, 192)), (10, (97, 161)), (15, (128, 192))):
            publish(sink, [frame_image(i, *size) for i in range(5)])
            wait(lambda expected=frames: len(log(tmp_path)) == expected)
    assert [line[2] for line in log(tmp_path)[::5]] == ["192x128", "160x96", "192x128"]
    assert len({line[0] for line in log(tmp_path)}) == 3


@real_time
@pytest.mark.parametrize("digest", [(), ("--digest",)])
def test_credentials(gstreamer, tmp_path, digest):
    port = free_port()
    with server(tmp_path, port, "--user", "bot", "--password", "s@fe", *digest):
        with sinks.open(f"rtsp://bot:s%40fe@127.0.0.1:{port}/live", INFO) as sink:
            publish(sink, [frame_image(i) for i in range(5)])
            wait(lambda: len(log(tmp_path)) == 5)
        for login in ("bot:guess", "guess:s%40fe"):
            with pytest.raises(StreamError, match=WRONG + r"refuses these credentials\.\n.*%40"):
                sinks.open(f"rtsp://{login}@127.0.0.1:{port}/live", INFO)


def test_servers_that_accept_no_stream_are_refused_before_anything_runs(gstreamer, tmp_path):
    port = free_port()
    with server(tmp_path, port):
        with pytest.raises(StreamError, match=r"/watch accepts no stream: 405 .*\n.*RECORD"):
            sinks.open(f"rtsp://127.0.0.1:{port}/watch", INFO)
        with pytest.raises(StreamError, match=r"/none does not exist on that server \(404\)"):
            sinks.open(f"rtsp://127.0.0.1:{port}/none", INFO)
    with pytest.raises(StreamError, match=WRONG + r"cannot be reached: Connection refused\.\nIs the RTSP server on"):
        sinks.open(f"rtsp://u:secret@127.0.0.1:{port}/live", FILE)


@real_time
@pytest.mark.parametrize("silent", [True, False], ids=["accepts and is silent", "is not there"])
def test_a_server_that_does_not_answer_at_the_start_is_waited_for(gstreamer, tmp_path, silent, caplog):
    """A camera's run begins without it, and the stream is there when the server is."""
    port = free_port()
    uri = f"rtsp://u:secret@127.0.0.1:{port}/live#timeout=0.4"
    with socket.create_server(("127.0.0.1", port)) if silent else contextlib.nullcontext():
        sink = ReconnectingSink(sinks.open(uri, INFO), lambda part: sinks.open(uri, replace(INFO, part=part)), 0.1)
        sink.write(result(BIG), BIG)
    assert "It is waited for." in caplog.text and "secret" not in caplog.text and sink.lost == 1
    with server(tmp_path, port), sink:
        until = time.monotonic() + 20
        for i in range(10_000):
            sink.write(result(BIG, i), BIG)
            if len(log(tmp_path)) > 5 or time.monotonic() > until:
                break
            time.sleep(0.04)
    assert len(log(tmp_path)) > 5 and sink.lost < 100


@real_time
def test_a_killed_server_stops_no_live_run_and_gets_the_stream_when_it_is_back(gstreamer, tmp_path):
    port, stop, summaries = free_port(), threading.Event(), []
    uri = f"rtsp://u:secret@127.0.0.1:{port}/live#timeout=2"
    source = sources.open(f"{clip(tmp_path / 'a.avi', 2000, fps=50)}?live=1")
    with server(tmp_path / "first", port) as first:
        video = ReconnectingSink(
            sinks.open(uri, INFO), lambda part: sinks.open(uri, sinks.Info(SPEC, 25.0, part=part)), 0.1
        )
        run = loop.Run(
            segmenter(), [loop.Stream(source, [video, sinks.open(f"{tmp_path}/log.jsonl", INFO)])], stop=stop
        )
        thread = threading.Thread(target=lambda: summaries.append(run.go()))
        thread.start()
        wait(lambda: len(log(tmp_path / "first")) > 10)
        first.kill()
        wait(lambda: video.lost > 5)
    with server(tmp_path / "second", port):
        wait(lambda: len(log(tmp_path / "second")) > 10)
        stop.set()
        thread.join(20)
    summary = summaries[0]
    assert summary.error is None and summary.result == "stopped" and video.failures > 0
    warning = next(w for w in summary.warnings if "failed" in w)
    assert f"lost {video.lost} results" in warning and "secret" not in warning, warning
    others = len((tmp_path / "log.jsonl").read_text().splitlines())
    assert summary.frames > video.lost + 15 and others > 0.9 * summary.frames


@real_time
def test_a_server_that_hangs_mid_run_holds_up_nobody(gstreamer, tmp_path):
    """Its buffers fill, then the time-out ends the wait; meanwhile every other thread goes on, and close() is quick."""
    port, gaps, done = free_port(), [0.0], threading.Event()

    def tick() -> None:
        last = time.monotonic()
        while not done.wait(0.01):
            last, gap = time.monotonic(), time.monotonic() - last
            gaps.append(gap)

    noise = np.random.default_rng(0).integers(0, 255, (360, 640, 3), np.uint8)
    with server(tmp_path, port) as process:
        sink = sinks.open(f"rtsp://127.0.0.1:{port}/live#timeout=1&bitrate_kbps=100000", INFO)
        publish(sink, [noise] * 3)
        process.send_signal(signal.SIGSTOP)
        ticker = threading.Thread(target=tick)
        ticker.start()
        try:
            with pytest.raises(StreamError, match=r"has not responded for 1 s\."):
                publish(sink, [noise] * 2000)
            begin = time.monotonic()
            sink.close()
            assert time.monotonic() - begin < 0.5
        finally:
            done.set()
            ticker.join(5)
    assert max(gaps) < 0.5


def answering(reply: bytes):
    """A server on loopback that gives every request the same answer; yields its port."""

    @contextlib.contextmanager
    def serve():
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def work() -> None:
                with contextlib.suppress(OSError):
                    connection, _ = listening.accept()
                    with connection:
                        while connection.recv(65536) and reply:
                            connection.sendall(reply)

            threading.Thread(target=work, daemon=True).start()
            yield listening.getsockname()[1]

    return serve()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", r"does not speak RTSP\.\nCheck the port"),
        (b"RTSP/1.0 500 Oops\r\n\r\n", r"accepts no stream: 500 Oops\."),
        (b'RTSP/1.0 401 No\r\nWWW-Authenticate: Digest realm="r", nonce="n"\r\n\r\n', r"refuses these credentials"),
        (b"$\0\0\x02ab" * 50, r"has not responded for 0\.5 s\."),
        (b"RTSP/1.0 200 OK\r\nCSeq: 99\r\n\r\n", r"has not responded for 0\.5 s\."),
        (b"x" * 70_000, r"does not speak RTSP"),
        (b"", r"(cannot be reached: the server ended the connection|has not responded)"),
    ],
)
def test_servers_that_answer_wrongly(reply, message):
    begin = time.monotonic()
    with answering(reply) as port, pytest.raises(StreamError, match=WRONG.rstrip() + r"\S* " + message):
        sinks.open(f"rtsp://u:secret@127.0.0.1:{port}/live#timeout=0.5", FILE)
    assert time.monotonic() - begin < 3


def test_a_server_that_never_answers():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        begin = time.monotonic()
        with pytest.raises(StreamError, match=r"has not responded for 0\.3 s\.\nIs the RTSP server on"):
            sinks.open(f"rtsp://127.0.0.1:{mute.getsockname()[1]}/live#timeout=0.3", FILE)
        assert time.monotonic() - begin < 2


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("rtsp://u:secret@h:1/live#bitrate=5", r"Unknown option of rtsp://\*\*\*@.*'bitrate'.*\n.*'bitrate_kbps'"),
        ("rtsp://u:secret@h:1/live#bitrate_kbps=5", r"bitrate_kbps='5' .*\nExpected a whole number from 50 to 100000"),
        ("rtsp://u:secret@h:1/live#transport=http", r"transport='http' .*\nExpected one of tcp, udp"),
        ("rtsp://u:secret@h:1/live#timeout=0", r"timeout='0' .*\nExpected a number from 0.1 to 60"),
        ("rtsp://u:secret@h:70000/live", r"is not an address\.\nExpected rtsp://host:8554/path"),
        ("rtsp://u:secret@h:8554", r"lacks a host or a path\.\nExpected rtsp://host:8554/path"),
        ("rtsp://h/live path", r"lacks a host or a path"),
        ("rtps://h/live", r"Unknown kind of sink 'rtps://'.\nDid you mean 'rtsp'\?"),
    ],
)
def test_wrong_options_and_addresses(uri, message):
    with pytest.raises(OptionError, match=message) as caught:
        sinks.open(uri, INFO)
    assert "secret" not in str(caught.value)


def test_a_source_and_a_sink_of_the_same_scheme_are_distinguished():
    uri = "rtsp://host:8554/live"
    assert sources.find(uri)[0].__name__ == "edgeseg.stream.sources.network" and sources.is_camera(uri)
    assert sinks.find(uri)[0] is rtsp
    assert sum(m.claims(sinks.Uri.parse(uri)) for m in sinks.modules()) == 1
    assert isinstance(sources.open(f"{uri}#max_megapixels=1"), sources.Source)  # each knows its own options only
    with pytest.raises(OptionError, match="max_megapixels"):
        sinks.open(f"{uri}#max_megapixels=1", INFO)


def packed(times: list[float], kbps: int = 2000) -> list[list[bytes]]:
    encoder = rtsp.Encoder(sinks.Uri.parse("rtsp://h/x"), 128, 192, 25.0, kbps)
    noise = np.random.default_rng(0).integers(0, 255, (len(times), 128, 192, 3), np.uint8)
    return [encoder.pack(encoder.encode(image, t)) for image, t in zip(noise, times)]


def test_packets_carry_the_capture_times_and_keys_come_every_two_seconds():
    times = [100.0, 100.04, 100.5, 100.5, 102.0, 103.9, 104.0]
    video = [[p for p in packets if not 200 <= p[1] <= 207] for packets in packed(times)]
    stamps = [int.from_bytes(packets[0][4:8], "big") for packets in video]
    assert [(s - stamps[0]) % 2**32 for s in stamps] == [0, 3600, 45000, 45001, 180000, 351000, 360000]
    kinds = [{p[12] & 31 if p[12] & 31 < 24 else p[13] & 31 for p in packets} for packets in video]
    keys = [bool(kind & {5, 7, 24}) or any(p[12] & 31 == 24 for p in packets) for kind, packets in zip(kinds, video)]
    assert keys == [True, False, False, False, True, False, True]
    assert max(len(p) for packets in video for p in packets) <= 1400


def test_the_bitrate_is_kept_even_with_noise():
    video = packed([i / 25 for i in range(75)], kbps=500)
    assert sum(len(p) for packets in video for p in packets) * 8 / 3 < 500_000 * 1.5


def test_the_sdp_names_the_parameter_sets():
    encoder = rtsp.Encoder(sinks.Uri.parse("rtsp://h/x"), 128, 192, 25.0, 500)
    sdp = rtsp.describe(encoder.encode(frame_image(0), 0.0))
    assert "sprop-parameter-sets=Z0" in sdp and ",aM" in sdp and "profile-level-id=42" in sdp
    assert "\n" not in sdp.replace("\r\n", "")
    assert "sprop" not in rtsp.describe([])


def test_sizes_that_cannot_be_encoded():
    with pytest.raises(StreamError, match=r"rtsp://h/x: no H\.264 video of 0x0 can be encoded"):
        rtsp.Encoder(sinks.Uri.parse("rtsp://h/x"), 0, 0, 25.0, 500)


def test_the_best_challenge_is_answered():
    """A Digest before Basic; the answer of the old form (no qop) is checked by hand, a real server checks the rest."""
    basic, sha = 'Basic realm="x"', 'Digest realm="r", qop="auth", algorithm=SHA-256, nonce="n", opaque="o"'
    assert challenge([basic, sha])[0] == "digest" and challenge([basic])[0] == "basic"
    assert challenge(["Negotiate", 'Digest algorithm=other, nonce="n"']) is None
    header = authorization(challenge([basic, sha]), ("u", "p"), "ANNOUNCE", "rtsp://h/x")
    assert "qop=auth, nc=00000001" in header and 'opaque="o"' in header
    header = authorization(challenge(['Digest realm="r", nonce="n"']), ("u", "p"), "ANNOUNCE", "rtsp://h/x")
    who, what = (hashlib.md5(text).hexdigest() for text in (b"u:r:p", b"ANNOUNCE:rtsp://h/x"))
    assert f'response="{hashlib.md5(f"{who}:n:{what}".encode()).hexdigest()}"' in header


def test_without_av_the_message_names_the_extra():
    code = (
        "import sys; sys.modules['av'] = None\nfrom edgeseg.stream import sinks\n"
        "sinks.open('rtsp://u:secret@h/x', sinks.Info(None))"
    )
    err = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert "Publishing to rtsp://***@h/x needs the package av" in err and "edgeseg[camera]" in err
