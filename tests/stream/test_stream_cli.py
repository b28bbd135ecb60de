"""edgeseg run, as a process, on a real OpenVINO bundle."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from stream_helpers import bundle, clip, frame_image, read_back
from typer.testing import CliRunner

from edgeseg.cli import app
from edgeseg.errors import EdgesegError
from edgeseg.stream import config
from edgeseg.stream.encoders import TimedEncoder
from edgeseg.stream.summary import RunSummary
from edgeseg.stream.supervise import ReconnectPolicy

pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'edgeseg[openvino]'")
EDGESEG = [sys.executable, "-c", "from edgeseg.cli import main; main()"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bundle(tmp_path_factory.mktemp("model") / "colors")


def edgeseg(*words) -> subprocess.CompletedProcess:
    return subprocess.run([*EDGESEG, *map(str, words)], capture_output=True, text=True, timeout=60)


def test_a_clip_to_a_video_with_a_summary(tmp_path, model):
    video = clip(tmp_path / "a.avi", 30)
    done = edgeseg(
        "run", model, "--source", video, "--sink", tmp_path / "out.mp4", "--sink", tmp_path / "m/", "--json", "-"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["frames"] == 30 and report["fps"] > 0 and report["result"] == "end of stream"
    assert set(report["latency_ms"]) == {"p50", "p90", "p99"} and report["stages"]["infer"]["p50"] > 0
    assert report["schema"] == 1 and RunSummary.from_dict(report).frames == 30
    assert re.fullmatch("[0-9a-f]{64}", report["bundle"]["digest"]) and report["bundle"]["name"] == model.name
    assert report["machine"]["versions"]["edgeseg"] and report["machine"]["id"]
    assert "30 frames in" in done.stderr and "infer" in done.stderr
    assert len(read_back(tmp_path / "out.mp4")) == 30 and len(list((tmp_path / "m").iterdir())) == 30


@pytest.mark.parametrize(
    ("number", "ignored"),
    [(signal.SIGINT, False), (signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGHUP, False)],
)
def test_a_signal_finishes_the_video_and_prints_the_summary(tmp_path, model, start_process, number, ignored):
    """Also where SIGINT was ignored at the start, as in the background jobs of a script."""
    source = f"{clip(tmp_path / 'a.avi')}?loop=1&live=1"
    run = start_process(
        [*EDGESEG, "run", model, "--source", source, "--sink", tmp_path / "out.mp4", "--json", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=ignore_interrupts if ignored else hear_hangups,
    )
    wait_until(run, lambda: any(p.stat().st_size for p in tmp_path.glob(".out*.mp4")))
    run.send_signal(number)
    out, err = run.communicate(timeout=20)
    assert run.returncode == 0, err
    assert json.loads(out)["result"] == "stopped"
    assert len(read_back(tmp_path / "out.mp4")) >= json.loads(out)["frames"] - 2 > 0
    assert list(tmp_path.glob(".out*")) == []


def test_nohup_outlives_its_terminal(tmp_path, model, start_process):
    source, log = f"{clip(tmp_path / 'a.avi')}?loop=1&live=1", tmp_path / "log.jsonl"
    run = start_process(
        ["nohup", *EDGESEG, "run", model, "--source", source, "--sink", log],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(run, lambda: log.exists() and log.stat().st_size)
    run.send_signal(signal.SIGHUP)
    size = log.stat().st_size
    wait_until(run, lambda: log.stat().st_size > 2 * size + 2000)
    run.send_signal(signal.SIGTERM)
    assert run.wait(20) == 0


def hear_hangups() -> None:
    """Also where these tests run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_a_background_job_of_a_script_stops_on_an_interrupt(tmp_path, model, start_process):
    """A shell without job control starts `&` jobs with SIGINT ignored; ours stops when it is sent one all the same."""
    source = f"{clip(tmp_path / 'a.avi')}?loop=1&live=1"
    words = shlex.join(map(str, [*EDGESEG, "run", model, "--source", source, "--sink", tmp_path / "log.jsonl"]))
    shell = start_process(["sh", "-c", f"{words} & echo $!; wait $!"], stdout=subprocess.PIPE, text=True)
    job = int(shell.stdout.readline())
    wait_until(shell, lambda: (tmp_path / "log.jsonl").exists() and (tmp_path / "log.jsonl").stat().st_size)
    os.kill(job, signal.SIGINT)
    assert shell.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_soak_takes_its_cameras_along(tmp_path, model, start_process, number):
    pytest.importorskip("av", reason="needs PyAV: pip install 'edgeseg[camera]'")
    soak = start_process(
        [*EDGESEG, "soak", model, "--minutes", "5"], stderr=subprocess.PIPE, text=True, preexec_fn=ignore_interrupts
    )
    wait_until(soak, lambda: len(children(soak.pid)) == 1)
    cameras = children(soak.pid)
    soak.send_signal(number)
    _, err = soak.communicate(timeout=20)
    assert soak.returncode == 130 and "Traceback" not in err, err
    until = time.monotonic() + 20
    while any(Path(f"/proc/{camera}").exists() for camera in cameras):
        assert time.monotonic() < until, "a camera was left behind"
        time.sleep(0.02)


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def wait_until(process: subprocess.Popen, condition, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.02)


def test_a_truncated_video_is_reported(tmp_path, model):
    video = clip(tmp_path / "a.avi", 40)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    done = edgeseg("run", model, "--source", video)
    assert done.returncode == 0 and "of 40 frames: it is truncated or damaged" in done.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "missing.mp4"], "Video missing.mp4 does not exist."),
        (["--source", "pipe.mp4"], "pipe.mp4 is a pipe, not a video file."),
        (["--source", "a.avi", "--sink", "pipe.jsonl"], "Nobody reads this pipe: start its reader first."),
        (["--source", "a.avi", "--sink", "/proc/out.mp4"], "Cannot write /proc"),
        (["--source", "a.avi", "--mode", "fast"], "Unknown mode 'fast'."),
        (["--source", "a.avi", "--queue", "0"], "queue is 0."),
        ([], "No source is given."),
        (["--source", "rtsp://u:secret@cam/x#tiemout=1"], "Unknown option of rtsp://***@cam/x#tiemout=*** 'tiemout'."),
        (["--source", "a.avi", "--source", "b=a.avi", "--sink", "o.mp4"], "Several streams would write to o.mp4."),
        (["--source", "rtsp://u:secret@127.0.0.1:1/x", "--no-reconnect"], "rtsp://***@127.0.0.1:1/x cannot be read"),
    ],
)
def test_errors_are_one_clear_message(tmp_path, model, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    clip(tmp_path / "a.avi", 3)
    os.mkfifo(tmp_path / "pipe.mp4")
    os.mkfifo(tmp_path / "pipe.jsonl")
    done = edgeseg("run", model, *words)
    assert done.returncode == 2 and message in done.stderr
    assert "Traceback" not in done.stderr and "secret" not in done.stderr + done.stdout


def test_two_streams_from_a_config_with_metrics(tmp_path, model, start_process):
    pytest.importorskip("prometheus_client", reason="needs prometheus-client: pip install 'edgeseg[metrics]'")
    clip(tmp_path / "a.avi")
    (tmp_path / "stream.toml").write_text(
        f'bundle = "{model}"\nfirst_delay = 0.1\nlongest_delay = 0.2\n'
        f'[[stream]]\nname = "front"\nsource = "{tmp_path}/a.avi?live=1&loop=1"\nsinks = ["{tmp_path}/front.jsonl"]\n'
        '[[stream]]\nname = "dead"\nsource = "rtsp://u:secret@127.0.0.1:1/live"\n'
    )
    port = free_port()
    words = [*EDGESEG, "run", "--config", tmp_path / "stream.toml", "--metrics", f"127.0.0.1:{port}", "--json", "-"]
    run = start_process(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    scrapes: list[str] = [""]
    wait_until(run, lambda: scrapes.append(fetch(port, "metrics")) or frames_of("front", scrapes[-1]) > 10)
    assert fetch(port, "healthz") == "alive\n"
    with pytest.raises(urllib.error.HTTPError) as not_ready:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5)
    assert not_ready.value.code == 503 and json.loads(not_ready.value.read()) == {"waiting_for": ["dead"]}
    run.send_signal(signal.SIGTERM)
    out, err = run.communicate(timeout=20)
    assert run.returncode == 0, err
    assert "secret" not in out + err + scrapes[-1]
    assert 'edgeseg_state{state="STREAMING",stream="front"} 1.0' in scrapes[-1]
    states = {s["name"]: s for s in json.loads(out)["streams"]}
    assert states["front"]["frames"] > 0 and states["dead"]["frames"] == 0
    assert "dead: BROKEN (rtsp://***@127.0.0.1:1/live cannot be read: Connection refused.)" in err.replace("\n", " ")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def fetch(port: int, page: str) -> str:
    """The page's text; "" where nobody listens yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5) as response:
            return response.read().decode()
    except urllib.error.URLError:
        return ""


def frames_of(stream: str, text: str) -> float:
    match = re.search(rf'^edgeseg_frames_total{{stream="{stream}"}} (\S+)$', text, re.MULTILINE)
    return float(match[1]) if match else 0.0


def test_metrics_without_the_package(tmp_path, model):
    """`run` needs prometheus-client for --metrics alone, and says so before it opens anything."""
    words = ["run", str(model), "--source", str(clip(tmp_path / "a.avi", 3)), "--sink", str(tmp_path / "out.jsonl")]
    without = "import sys; sys.modules['prometheus_client'] = None; from edgeseg.cli import main; main()"
    plain = subprocess.run([sys.executable, "-c", without, *words], capture_output=True, text=True, timeout=60)
    assert plain.returncode == 0, plain.stderr
    (tmp_path / "out.jsonl").unlink()
    words += ["--metrics", "127.0.0.1:0"]
    refused = subprocess.run([sys.executable, "-c", without, *words], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2 and not (tmp_path / "out.jsonl").exists()
    assert "Serving metrics needs the package prometheus-client, which is not installed." in refused.stderr
    assert "pip install 'edgeseg[metrics]'" in refused.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bundel = 'x'", r"Unknown key of .*stream\.toml 'bundel'\.\nDid you mean 'bundle'"),
        ("bundle = 'x'\n[[stream]]\nsorce = 'a'", r"Unknown key of \[\[stream\]\] .* 'sorce'\.\nDid you mean 'source'"),
        ("bundle = 'x'\nheal = true", r"Unknown key of .* 'heal'\."),
        ("bundle = 'x'\nreconnect = 1", r"reconnect is 1\.\nExpected true or false"),
        ("bundle = 'x'", r"No source is given"),
        ("[[stream]]\nsource = 'a'", r"has no bundle"),
        ("bundle = 'x'\nstall = 'long'\n[[stream]]\nsource = 'a'", r"stall is a string\.\nExpected a number"),
        ("bundle = 'x'\nstall = nan\n[[stream]]\nsource = 'a'", r"stall is nan"),
        ("bundle = 'x'\nqueue = 0\n[[stream]]\nsource = 'a'", r"queue is 0\.\nExpected at least 1"),
        ("bundle = 'x'\n[[stream]]\nname = 'a'", r"source is missing\.\nExpected a string"),
        ("bundle = 'x'\nstream = 3", r"stream is not a list of tables"),
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


ROOT = Path(__file__).parents[2]
EXAMPLE = re.search(r"## stream\.toml\n```toml\n(.*?)```", (ROOT / "docs/streaming.md").read_text(), re.DOTALL)[1]


def test_the_config_of_the_documentation_works_as_printed(tmp_path, start_process):
    """From another folder: what it names lies beside the file. Its camera is not there, and is waited for."""
    pytest.importorskip("prometheus_client", reason="needs prometheus-client: pip install 'edgeseg[metrics]'")
    for port in (9108, 8090):
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"port {port} of the example is in use")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    site.mkdir()
    (site / "models").symlink_to(ROOT / "models")
    (site / "stream.toml").write_text(EXAMPLE)
    run = start_process(
        [*EDGESEG, "run", "--config", "../site/stream.toml"], cwd=elsewhere, stderr=subprocess.PIPE, text=True
    )
    lines = site / "rendered.jsonl"
    wait_until(run, lambda: lines.exists() and len(lines.read_text().splitlines()) > 5)
    assert frames_of("rendered", fetch(9108, "metrics")) > 0
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=20)
    assert run.returncode == 0, err
    assert "front: CONNECTING" in err.replace("\n", " ") and "password" not in err
    assert read_back(site / "rendered.mp4") and (site / "front.jsonl").exists()
    assert list(elsewhere.iterdir()) == []


def test_every_key_that_the_documentation_names_is_one(tmp_path):
    def load(without: str):
        wanted = rf"^# (?!{without})(?=\w+ = )"
        (tmp_path / "stream.toml").write_text(re.sub(wanted, "", EXAMPLE, flags=re.MULTILINE))
        return config.load(tmp_path / "stream.toml")

    settings = load("reuse|max_drop|stabilize")
    assert settings.threads == 2 and settings.policy == ReconnectPolicy() and settings.deadline_ms == 150
    settings = load("deadline_ms|fallback|blur|fill")
    assert (settings.reuse, settings.max_drop, settings.stabilize) == ("auto", 1.0, True)
    uncommented = {line.split(" = ")[0].removeprefix("# ") for line in EXAMPLE.splitlines() if " = " in line}
    assert uncommented - {"name", "source", "sinks"} == set(config.KEY_TYPES)


def test_all_paths_of_a_config_are_relative_to_it(tmp_path):
    (tmp_path / "stream.toml").write_text(
        "bundle = 'b'\nfallback = ['c']\ndeadline_ms = 9\nrequire_signature = 'k.pub'\n"
        "[[stream]]\nsource = '../a.mp4?loop=1'\nsinks = ['out/?overlay=1', '/x/o.mp4', 'null://', 'a.jsonl']\n"
        "[[stream]]\nsource = 'webcam'\n[[stream]]\nsource = 'f/*.png'\n[[stream]]\nsource = 'rtsp://cam/x'\n"
    )
    found = config.load(tmp_path / "stream.toml")
    here = str(tmp_path)
    assert (found.bundle, found.fallback, found.require_signature) == (
        tmp_path / "b",
        (tmp_path / "c",),
        tmp_path / "k.pub",
    )
    assert found.streams[0].sinks == (f"{here}/out/?overlay=1", "/x/o.mp4", "null://", f"{here}/a.jsonl")
    assert [s.source for s in found.streams] == [
        f"{here}/../a.mp4?loop=1",
        "/dev/video0",
        f"{here}/f/*.png",
        "rtsp://cam/x",
    ]


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_threads_are_an_option(tmp_path, model, mode):
    video = clip(tmp_path / "a.avi", 5)
    done = edgeseg("run", model, "--source", video, "--threads", 1, "--mode", mode, "--json", "-")
    assert done.returncode == 0 and json.loads(done.stdout)["frames"] == 5, done.stderr
    wrong = edgeseg("run", model, "--source", video, "--threads", 0)
    assert wrong.returncode == 2 and "threads is 0." in wrong.stderr


def test_media_time_goes_from_the_file_to_the_results(tmp_path, model):
    """Uneven times in, the same times out: in JSON lines and, with PyAV, in the video."""
    av = pytest.importorskip("av", reason="mp4 files of any times need PyAV: pip install 'edgeseg[camera]'")
    times = [0.0, 0.1, 0.2, 0.9, 1.0, 2.5]
    encoder = TimedEncoder(tmp_path / "a.mp4", 192, 128, 10)
    for i, seconds in enumerate(times):
        encoder.write(frame_image(i), seconds)
    encoder.close()
    sinks = [word for name in ("o.jsonl", "o.mp4") for word in ("--sink", tmp_path / name)]
    done = edgeseg("run", model, "--source", tmp_path / "a.mp4", *sinks)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [line["pts"] for line in lines] == pytest.approx(times, abs=1e-4)
    with av.open(str(tmp_path / "o.mp4")) as written:
        assert [frame.time for frame in written.decode(video=0)] == pytest.approx(times, abs=1e-4)


def test_metrics_on_a_port_in_use(tmp_path, model):
    pytest.importorskip("prometheus_client", reason="needs prometheus-client: pip install 'edgeseg[metrics]'")
    video = clip(tmp_path / "a.avi", 3)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = edgeseg("run", model, "--source", video, "--metrics", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 2 and "Cannot serve metrics on 127.0.0.1" in done.stderr


def test_systemd_is_notified(tmp_path, model, start_process):
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(20)
        words = [*EDGESEG, "run", model, "--source", f"{clip(tmp_path / 'a.avi')}?live=1&loop=1"]
        run = start_process(words, env={**os.environ, "NOTIFY_SOCKET": address}, stderr=subprocess.DEVNULL)
        assert sock.recv(100) == b"READY=1" and sock.recv(100) == b"WATCHDOG=1"
        run.send_signal(signal.SIGTERM)
        assert run.wait(20) == 0


def test_the_runtime_never_imports_what_a_device_lacks(tmp_path, model):
    code = (
        "import sys\n"
        "lacking = 'torch onnx nncf edgeseg.training edgeseg.quantization av gi prometheus_client'\n"
        "for name in lacking.split():\n"
        "    sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from edgeseg.stream import assemble, config, metrics_server\n"
        f"s = config.Settings(Path({str(model)!r}), config.from_options([{str(clip(tmp_path / 'a.avi', 5))!r}], []))\n"
        "with assemble.opened(s) as run: print(run.go().frames)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "5", done.stderr


def test_without_a_terminal_progress_and_what_was_written_are_logged(tmp_path, model):
    outputs = [tmp_path / "out.avi", tmp_path / "log.jsonl", tmp_path / "masks"]
    words = ["run", str(model), "--source", str(clip(tmp_path / "a.avi", 30)), "--sink", "null://"]
    for output in outputs:
        words += ["--sink", str(output)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    progress = [line for line in lines if re.search(r" run: \d+ of 30 frames in \d+ s, [\d.]+ FPS$", line)]
    assert " run: 30 of 30 frames " in progress[-1]
    assert [line.partition(" ")[2] for line in lines if " wrote " in line] == [f"wrote {path}" for path in outputs]


def test_every_setting_has_a_key_in_the_config():
    settings = {f.name for f in dataclasses.fields(config.Settings)} - {"streams", "policy"}
    assert settings | set(config.POLICY_KEYS) == set(config.KEY_TYPES)


def test_what_a_soak_measured_survives_it(tmp_path, model, start_process):
    """A report is written after every round of faults, so that kill -9 after hours leaves their figures."""
    found = tmp_path / "soak.json"
    soak = start_process([*EDGESEG, "soak", model, "--hours", "1", "--fault", "slow", "--json", found])
    wait_until(soak, found.exists, 60)
    soak.kill()
    soak.wait()
    report = json.loads(found.read_text())
    assert report["finished"] is False and report["result"] == "running"
    assert report["faults"]["slow"]["count"] == 1
