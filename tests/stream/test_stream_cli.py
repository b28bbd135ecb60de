"""edgeseg run, as a process, on a real OpenVINO bundle."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from stream_helpers import bundle, clip, read_back

from edgeseg.errors import EdgesegError
from edgeseg.stream import config

pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'edgeseg[openvino]'")
EDGESEG = [sys.executable, "-c", "from edgeseg.cli import main; main()"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bundle(tmp_path_factory.mktemp("model") / "colors")


def edgeseg(*words) -> subprocess.CompletedProcess:
    return subprocess.run([*EDGESEG, *map(str, words)], capture_output=True, text=True, timeout=60)


def test_a_clip_to_a_film_with_a_summary(tmp_path, model):
    film = clip(tmp_path / "a.avi", 30)
    done = edgeseg(
        "run", model, "--source", film, "--sink", tmp_path / "out.mp4", "--sink", tmp_path / "m/", "--json", "-"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["frames"] == 30 and report["fps"] > 0 and report["result"] == "end of stream"
    assert set(report["latency_ms"]) == {"p50", "p90", "p99"} and report["stages"]["infer"]["p50"] > 0
    assert "30 frames in" in done.stderr and "infer" in done.stderr
    assert len(read_back(tmp_path / "out.mp4")) == 30 and len(list((tmp_path / "m").iterdir())) == 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_film_and_prints_the_summary(tmp_path, model, number):
    words = ["run", model, "--source", f"{clip(tmp_path / 'a.avi')}?loop=1&live=1", "--sink", tmp_path / "out.mp4"]
    run = subprocess.Popen(
        [*EDGESEG, *map(str, words), "--json", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 30
    while not any(p.stat().st_size for p in tmp_path.glob(".out*.mp4")):
        assert time.monotonic() < until and run.poll() is None
        time.sleep(0.05)
    run.send_signal(number)
    out, told = run.communicate(timeout=20)
    assert run.returncode == 0, told
    assert json.loads(out)["result"] == "stopped"
    assert len(read_back(tmp_path / "out.mp4")) >= json.loads(out)["frames"] - 2 > 0
    assert list(tmp_path.glob(".out*")) == []


def test_a_truncated_film_is_told(tmp_path, model):
    film = clip(tmp_path / "a.avi", 40)
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    done = edgeseg("run", model, "--source", film)
    assert done.returncode == 0 and "of 40 frames: it is truncated or damaged" in done.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "missing.mp4"], "Video missing.mp4 does not exist."),
        (["--source", "a.avi", "--sink", "/proc/out.mp4"], "Cannot write /proc"),
        (["--source", "a.avi", "--mode", "fast"], "Unknown mode 'fast'."),
        (["--source", "a.avi", "--queue", "0"], "queue is 0."),
        ([], "No source is named."),
        (["--source", "rtsp://u:secret@cam/x#tiemout=1"], "Unknown option of rtsp://***@cam/x#tiemout=1 'tiemout'."),
        (["--source", "a.avi", "--source", "b=a.avi", "--sink", "o.mp4"], "Several streams would write to o.mp4."),
        (["--source", "rtsp://u:secret@127.0.0.1:1/x", "--no-heal"], "rtsp://***@127.0.0.1:1/x cannot be read"),
    ],
)
def test_errors_are_one_clear_message(tmp_path, model, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "a.avi", 3)
    done = edgeseg("run", model, *words)
    assert done.returncode == 2 and message in done.stderr
    assert "Traceback" not in done.stderr and "secret" not in done.stderr + done.stdout


def test_two_streams_from_a_config_with_metrics(tmp_path, model):
    clip(tmp_path / "a.avi")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    (tmp_path / "stream.toml").write_text(
        f'bundle = "{model}"\nmetrics = "127.0.0.1:{port}"\nfirst_delay = 0.1\nlongest_delay = 0.2\n'
        f'[[stream]]\nname = "front"\nsource = "{tmp_path}/a.avi?live=1&loop=1"\nsinks = ["{tmp_path}/front.jsonl"]\n'
        '[[stream]]\nname = "dead"\nsource = "rtsp://u:secret@127.0.0.1:1/live"\n'
    )
    words = [*EDGESEG, "run", "--config", str(tmp_path / "stream.toml"), "--json", "-"]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        text = wait_for(f"http://127.0.0.1:{port}/metrics", 'edgeseg_frames_total{stream="front"} ', run)
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).status == 200
        with pytest.raises(urllib.error.HTTPError) as not_ready:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5)
        assert not_ready.value.code == 503 and json.loads(not_ready.value.read()) == {"waiting_for": ["dead"]}
    finally:
        run.send_signal(signal.SIGTERM)
        out, told = run.communicate(timeout=20)
    assert 'edgeseg_state{stream="dead",state="BACKING_OFF"}' in text and "# TYPE edgeseg_frames_total counter" in text
    assert run.returncode == 0, told
    assert "secret" not in out + told + text
    states = {s["name"]: s for s in json.loads(out)["streams"]}
    assert states["front"]["frames"] > 0 and states["dead"]["frames"] == 0
    assert "dead: BROKEN (rtsp://***@127.0.0.1:1/live cannot be read: Connection refused.)" in told.replace("\n", " ")


def wait_for(url: str, start: str, run: subprocess.Popen) -> str:
    """The page at `url` once the value after `start` is above 10."""
    until = time.monotonic() + 30
    while time.monotonic() < until and run.poll() is None:
        try:
            text = urllib.request.urlopen(url, timeout=5).read().decode()
            if any(line.startswith(start) and float(line.split()[-1]) > 10 for line in text.splitlines()):
                return text
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{url} never showed {start}: {run.poll()}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bundel = 'x'", r"Unknown key of .*stream\.toml 'bundel'\.\nDid you mean 'bundle'"),
        ("bundle = 'x'\n[[stream]]\nsorce = 'a'", r"Unknown key of \[\[stream\]\] .* 'sorce'\.\nDid you mean 'source'"),
        ("bundle = 'x'", r"No source is named"),
        ("[[stream]]\nsource = 'a'", r"names no bundle"),
        ("bundle = 'x'\nstall = 'long'\n[[stream]]\nsource = 'a'", r"stall is 'long'\.\nExpected a number"),
        ("bundle = 'x'\nstall = nan\n[[stream]]\nsource = 'a'", r"stall is nan"),
        ("bundle = 'x'\nqueue = 0\n[[stream]]\nsource = 'a'", r"queue is 0\.\nExpected at least 1"),
        ("bundle = 'x'\n[[stream]]\nname = 'a'", r"source is None\.\nExpected a text"),
        ("bundle = 'x'\nstream = 3", r"stream is no list of tables"),
        ("bundle = x", r"is not valid TOML"),
        (
            "bundle='x'\n[[stream]]\nname='a'\nsource='x'\n[[stream]]\nname='a'\nsource='y'",
            r"Two streams are called 'a'",
        ),
    ],
)
def test_wrong_configs(tmp_path, text, message):
    (tmp_path / "stream.toml").write_text(text)
    with pytest.raises(EdgesegError, match=message):
        config.load(tmp_path / "stream.toml")


def test_options_win_over_the_config(tmp_path):
    (tmp_path / "stream.toml").write_text("bundle = 'b'\nmode = 'latency'\nstall = 2\n[[stream]]\nsource = 'a.mp4'\n")
    settings = config.load(tmp_path / "stream.toml", mode="throughput", max_frames=None)
    assert settings.mode == "throughput" and settings.policy.stall == 2.0 and settings.bundle == tmp_path / "b"


def test_metrics_on_a_port_in_use(tmp_path, model):
    film = clip(tmp_path / "a.avi", 3)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = edgeseg("run", model, "--source", film, "--metrics", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 2 and "Cannot serve metrics on 127.0.0.1" in done.stderr


def test_systemd_is_told(tmp_path, model):
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(20)
        words = [*EDGESEG, "run", str(model), "--source", f"{clip(tmp_path / 'a.avi', 50)}?live=1"]
        run = subprocess.Popen(words, env={**os.environ, "NOTIFY_SOCKET": address}, stderr=subprocess.DEVNULL)
        assert sock.recv(100) == b"READY=1" and sock.recv(100) == b"WATCHDOG=1"
        assert run.wait(20) == 0


def test_the_runtime_never_imports_what_a_device_lacks(tmp_path, model):
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'nncf', 'edgeseg.training', 'edgeseg.quantization', 'av', 'gi'):\n"
        "    sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from edgeseg.stream import assemble, config, metrics\n"
        f"s = config.Settings(Path({str(model)!r}), config.from_options([{str(clip(tmp_path / 'a.avi', 5))!r}], []))\n"
        "with assemble.opened(s) as run: print(run.go().frames)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "5", done.stderr
