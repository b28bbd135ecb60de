"""The videos of `make demo` play in a real browser, at their size, speed and colors."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import browser as browsers
import cv2
import numpy as np
import pytest
from browser import Browser
from stream_helpers import SPEC, frame_image

from edgeseg.result import Frame, Result
from edgeseg.stream import sinks

pytest.importorskip("av", reason="H.264 needs PyAV: pip install 'edgeseg[camera]'")
pytestmark = pytest.mark.skipif(not browsers.NAME, reason="no chromium")
EDGESEG = [sys.executable, "-c", "from edgeseg.cli import main; main()"]
MODEL = Path(__file__).parents[2] / "models" / "street" / "street-int8"
PAGE = "<!doctype html><video id=v muted autoplay playsinline src=/{}></video>"
STATE = "(v => [v.error && v.error.message, v.videoWidth, v.videoHeight, v.duration, v.currentTime])(document.all.v)"
PIXELS = """(() => {{
    const v = document.all.v, c = document.createElement('canvas');
    c.width = v.videoWidth; c.height = v.videoHeight;
    const context = c.getContext('2d');
    context.drawImage(v, 0, 0);
    return {}.map(([x, y]) => [...context.getImageData(x, y, 1, 1).data].slice(0, 3));
}})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


class Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address at which the files of tmp_path are."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def play(browser: Browser, served: str, folder: Path, name: str) -> tuple[int, int, float]:
    """Width, height and seconds of a video, once it has played to its end."""
    (folder / "page.html").write_text(PAGE.format(name))
    browser.go(f"{served}/page.html")
    browser.wait("document.all.v.error || document.all.v.ended")
    error, width, height, seconds, at = browser.value(STATE)
    assert error is None, error
    assert at == pytest.approx(seconds, abs=0.05) and at > 0
    return width, height, seconds


def test_the_videos_of_the_demo_play(browser: Browser, served: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'edgeseg[openvino]'")
    synth = ("synth", tmp_path / "data", "--train", 1, "--val", 1, "--test", 1, "--frames", 40)
    for words in (
        (*synth, "--clip", tmp_path / "street.mp4"),
        ("run", MODEL, "--source", tmp_path / "street.mp4", "--sink", tmp_path / "segmented.mp4"),
    ):
        done = subprocess.run([*EDGESEG, *map(str, words)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    for name in ("street.mp4", "segmented.mp4"):
        assert play(browser, served, tmp_path, name) == (1280, 720, pytest.approx(1.6, abs=0.05))


@pytest.mark.parametrize("size", [(128, 192), (720, 1280)])
def test_colors_are_what_was_written(browser: Browser, served: str, tmp_path: Path, size: tuple[int, int]) -> None:
    classmap = np.zeros((SPEC.height, SPEC.width), np.uint8)
    image = frame_image(0, *size)
    with sinks.open(f"{tmp_path}/colors.mp4", sinks.Info(SPEC, 25.0)) as sink:
        for i in range(30):
            sink.write(Result(Frame(image, i), classmap, {}), image)
    assert play(browser, served, tmp_path, "colors.mp4")[:2] == size[::-1]
    points = [[int(size[1] * x), size[0] // 2] for x in (0.125, 0.375, 0.625, 0.875)]
    shown = np.array(browser.value(PIXELS.format(points)))
    written = np.array([image[y, x, ::-1] for x, y in points]).astype(int)
    assert np.abs(shown - written).max() <= 8, (shown, written)
    read = cv2.VideoCapture(str(tmp_path / "colors.mp4")).read()[1]
    assert np.abs(np.array([read[y, x, ::-1] for x, y in points]).astype(int) - written).max() <= 8


def test_uneven_times_play_as_long_as_they_last(browser: Browser, served: str, tmp_path: Path) -> None:
    with sinks.open(f"{tmp_path}/uneven.mp4", sinks.Info(SPEC, 25.0)) as sink:
        for i, pts in enumerate((0.0, 0.1, 0.15, 0.9, 1.0, 1.5)):
            result = Result(Frame(frame_image(i), i, pts=pts), np.zeros((SPEC.height, SPEC.width), np.uint8), {})
            sink.write(result, frame_image(i))
    assert play(browser, served, tmp_path, "uneven.mp4")[2] == pytest.approx(1.54, abs=0.02)
