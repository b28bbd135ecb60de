"""The web page in a real browser: drop an image, toggle classes, keys, a phone, hostile names, errors.

Set EDGESEG_PICTURES to a folder to keep pictures of it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import browser as browsers
import cv2
import numpy as np
import pytest
import tiny
from browser import Browser
from serving_helpers import ROOT, Served, serving

from edgeseg.images import Image

pytestmark = pytest.mark.skipif(not browsers.NAME, reason="no chromium")
NASTY = '<img src=x onerror="document.title=1">&lt;'
DONE = "document.getElementById('status').textContent.includes('with the way')"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def picture(browser: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """Keeps a picture of how the test left the page."""
    yield
    folder = Path(os.environ.get("EDGESEG_PICTURES", tmp_path))
    folder.mkdir(exist_ok=True)
    browser.picture(folder / f"{request.node.name}.png")


@pytest.fixture
def photo(frames: list[Image], tmp_path: Path) -> Path:
    path = tmp_path / 'street <b>"1".png'
    path.write_bytes(cv2.imencode(".png", cv2.resize(frames[0], (960, 640)))[1].tobytes())
    return path


@pytest.fixture(autouse=True)
def quiet(browser: Browser) -> Iterator[None]:
    """Nothing in the console: no blocked script, no exception."""
    browser.console.clear()
    browser.resize(1280, 800)
    yield
    assert not [line for line in browser.console if "status of 4" not in line], browser.console


def pixel(browser: Browser, x: int, y: int) -> list[int]:
    at = f"getContext('2d').getImageData({x}, {y}, 1, 1).data"
    found: list[int] = browser.value(f"[...document.getElementById('canvas').{at}]")[:3]
    return found


def test_an_image_is_segmented_and_classes_toggle(server: Served, browser: Browser, photo: Path, picture: None) -> None:
    answer = server.segment(photo.read_bytes(), "?format=areas").json
    browser.go(server.url)
    browser.wait("document.getElementById('model').options.length === 2")
    browser.choose("#file", photo)
    browser.wait(DONE)
    shown = browser.value(
        "[...document.querySelectorAll('#legend tr')].map(r => r.innerText.trim().replace(/\\s+/g, ' '))"
    )
    rows = sorted(answer["classes"], key=lambda row: -row["share"])
    assert shown == [f"{row['name']} {100 * row['share']:.1f} %" for row in rows]
    assert browser.value("document.getElementById('status').innerText").startswith('street <b>"1".png')
    set_opacity(browser, 100)
    ids = cv2.imdecode(np.frombuffer(server.segment(photo.read_bytes()).body, np.uint8), cv2.IMREAD_COLOR)
    for x, y in ((5, 5), (480, 320), (900, 600), (100, 500)):
        assert pixel(browser, x, y) == ids[y, x, ::-1].tolist()
    browser.value("document.getElementById('none').click()")
    original = cv2.imread(str(photo))
    for x, y in ((5, 5), (480, 320)):
        assert pixel(browser, x, y) == original[y, x, ::-1].tolist()
    browser.value("document.getElementById('all').click()")
    set_opacity(browser, 50)


def set_opacity(browser: Browser, percent: int) -> None:
    browser.value(f"opacity.value = {percent}; opacity.dispatchEvent(new Event('input')); 0")


def tab(browser: Browser) -> str:
    """The id of the control, or the value of the radio button, that the next Tab reaches."""
    browser.press("Tab", 9)
    return str(browser.value("document.activeElement.id || document.activeElement.value"))


def test_by_keyboard_alone(server: Served, browser: Browser, photo: Path, picture: None) -> None:
    browser.go(server.url)
    browser.wait("document.getElementById('model').options.length === 2")
    assert [tab(browser) for _ in range(4)] == ["model", "compare", "file", "webcam"]
    browser.choose("#file", photo)
    browser.wait(DONE)
    order = [tab(browser) for _ in range(4)]
    assert order[:2] == ["classes", "opacity"]
    assert order[2].startswith("class-") and order[3].startswith("class-")
    before = browser.value(f"document.getElementById('{order[3]}').checked")
    browser.press(" ", 32, " ")
    assert browser.value(f"document.getElementById('{order[3]}').checked") is not before


def test_on_a_phone(server: Served, browser: Browser, photo: Path, picture: None) -> None:
    browser.resize(390, 844, phone=True)
    browser.go(server.url)
    browser.wait("document.getElementById('model').options.length === 2")
    browser.choose("#file", photo)
    browser.wait(DONE)
    assert browser.value("document.documentElement.scrollWidth <= 390")
    shown = "[...document.querySelectorAll('button, select, .button')].filter(b => b.offsetParent)"
    heights = browser.value(f"{shown}.map(b => b.getBoundingClientRect().height)")
    assert min(heights) >= 44


@pytest.mark.parametrize(
    ("name", "content"), [("notes.png", b"no image"), (f"{NASTY.replace('/', '')}.jpg", b"\xff\xd8")]
)
def test_a_failed_upload_says_why(
    server: Served, browser: Browser, tmp_path: Path, picture: None, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    browser.go(server.url)
    browser.wait("document.getElementById('model').options.length === 2")
    browser.choose("#file", path)
    browser.wait("document.getElementById('status').classList.contains('wrong')")
    assert browser.value("document.getElementById('status').textContent").startswith(name)
    assert browser.value("document.title") == "edgeseg"


def test_labels_are_text(network: Path, browser: Browser, photo: Path, tmp_path: Path, picture: None) -> None:
    from edgeseg.compile import compile_model
    from edgeseg.target import Target

    names = tuple(f"{NASTY}{i}" for i in range(8))
    spec = dataclasses.replace(tiny.SPEC, classes=names)
    compile_model(network, tmp_path / "nasty", Target.load("openvino-cpu"), "fp32", spec=spec, frames=tiny.frames(2))
    with serving(tmp_path / "log", tmp_path / "nasty") as served:
        browser.go(served.url)
        browser.wait("document.getElementById('model').options.length === 1")
        browser.choose("#file", photo)
        browser.wait(DONE)
        assert NASTY in browser.value("document.getElementById('legend').innerText")
        assert browser.value("document.querySelectorAll('img:not(#stream)').length") == 0
        assert browser.value("document.title") == "edgeseg"


def test_a_token_is_asked_for(bundle: Path, browser: Browser, photo: Path, tmp_path: Path, picture: None) -> None:
    with serving(tmp_path / "log", f"tiny={bundle}", token="a-token-of-tests") as served:
        browser.go(served.url)
        browser.wait("!document.getElementById('token-label').hidden")
        assert "token is needed" in browser.value("document.getElementById('status').textContent")
        browser.value("token.value = 'a-token-of-tests'; token.dispatchEvent(new Event('change')); 0")
        browser.wait("document.getElementById('model').options.length === 1")
        browser.choose("#file", photo)
        browser.wait(DONE)


def test_other_scripts_do_not_run(server: Served, browser: Browser) -> None:
    browser.go(server.url)
    script = "const s = document.createElement('script'); s.textContent = 'document.title = 1'; document.head.append(s)"
    browser.value(f"{script}; 0")
    assert browser.value("document.title") == "edgeseg"
    browser.call("Page.navigate", url="about:blank")
    assert any("Content Security Policy" in line for line in browser.console)
    browser.console.clear()


def test_two_bundles_are_compared_with_a_slider(server: Served, browser: Browser, photo: Path, picture: None) -> None:
    browser.go(server.url)
    browser.wait("document.getElementById('compare').options.length === 3")
    browser.choose("#file", photo)
    browser.wait(DONE)
    assert browser.value("document.getElementById('split-label').hidden")
    browser.value("compare.value = 'other'; compare.dispatchEvent(new Event('change')); 0")
    browser.wait("!document.getElementById('split-label').hidden")
    assert browser.value("document.getElementById('right-name').textContent") == "other"
    areas = browser.value("document.querySelector('#legend td:last-child').innerText")
    assert areas.count("%") == 2
    assert line(browser) == [480]
    browser.value("split.focus(); split.value = 25; split.dispatchEvent(new Event('input')); 0")
    assert line(browser) == [240]
    browser.press("ArrowRight", 39)
    assert line(browser) == [250]
    box = browser.value("(b => [b.left, b.top, b.width, b.height])(canvas.getBoundingClientRect())")
    x, y = box[0] + 0.75 * box[2], box[1] + box[3] / 2
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
    assert abs(line(browser)[0] - 720) < 12
    browser.value("compare.value = ''; compare.dispatchEvent(new Event('change')); 0")
    browser.wait("document.getElementById('split-label').hidden")


def line(browser: Browser) -> list[int]:
    """The columns, to 10 pixels, that are white from top to bottom."""
    script = """(() => { const {width, height} = canvas;
    const {data} = canvas.getContext('2d').getImageData(0, 0, width, height);
    const white = (x) => [...Array(height).keys()].every((y) => data[4 * (y * width + x)] === 255
      && data[4 * (y * width + x) + 1] === 255 && data[4 * (y * width + x) + 2] === 255);
    return [...new Set([...Array(width).keys()].filter(white).map((x) => 10 * Math.round(x / 10)))]; })()"""
    found: list[int] = browser.value(script)
    return found


def test_what_the_model_is_unsure_of_is_red(server: Served, browser: Browser, photo: Path, picture: None) -> None:
    gray = cv2.imdecode(
        np.frombuffer(server.segment(photo.read_bytes(), "?format=confidence").body, np.uint8), cv2.IMREAD_UNCHANGED
    )
    browser.go(server.url)
    browser.wait("document.getElementById('model').options.length === 2")
    browser.choose("#file", photo)
    browser.wait(DONE)
    set_opacity(browser, 100)
    before = pixel(browser, 480, 320)
    browser.value("document.querySelector('[value=confidence]').click()")
    y, x = np.unravel_index(gray.argmin(), gray.shape)
    original = cv2.imread(str(photo))[..., ::-1].astype(float)
    browser.wait(f"canvas.getContext('2d').getImageData({x}, {y}, 1, 1).data[1] < 60")
    for at in ((480, 320), (int(x), int(y)), (5, 5)):
        alpha = 1 - gray[at[1], at[0]] / 255
        expected = alpha * np.array([220, 30, 30]) + (1 - alpha) * original[at[1], at[0]]
        np.testing.assert_allclose(pixel(browser, *at), expected, atol=3)
    browser.value("document.querySelector('[value=classes]').click()")
    browser.wait(f"String(canvas.getContext('2d').getImageData(480, 320, 1, 1).data.slice(0, 3)) === '{_csv(before)}'")
    browser.value("document.querySelector('[value=confidence]').click()")
    browser.wait(f"canvas.getContext('2d').getImageData({x}, {y}, 1, 1).data[1] < 60")


def _csv(values: list[int]) -> str:
    return ",".join(map(str, values))


@pytest.fixture
def film(frames: list[Image], tmp_path: Path) -> Path:
    """Two seconds, 20 frames, in a codec that every browser plays."""
    if not shutil.which("ffmpeg"):
        pytest.skip("ffmpeg is not installed")
    for i in range(20):
        moved = np.roll(cv2.resize(frames[0], (480, 320)), 12 * i, axis=1)
        cv2.imwrite(str(tmp_path / f"{i:02}.png"), moved)
    path = tmp_path / "street <i>.webm"
    command = f"ffmpeg -v error -framerate 10 -i {tmp_path}/%02d.png -c:v libvpx -b:v 2M -pix_fmt yuv420p".split()
    subprocess.run([*command, str(path)], check=True)
    return path


def test_a_clip_is_segmented_frame_by_frame_and_plays(
    server: Served, browser: Browser, film: Path, picture: None
) -> None:
    browser.go(server.url)
    browser.wait("document.getElementById('model').options.length === 2")
    browser.choose("#file", film)
    browser.wait("document.getElementById('status').textContent.includes('10 frames')", 60)
    assert browser.value("document.getElementById('frame-shown').textContent") == "10 of 10"
    last = pixel(browser, 100, 100)
    browser.value("frame.value = 0; frame.dispatchEvent(new Event('input')); 0")
    browser.wait("document.getElementById('frame-shown').textContent === '1 of 10'")
    assert pixel(browser, 100, 100) != last
    browser.value("document.getElementById('play').click()")
    browser.wait("document.getElementById('play').textContent === 'Pause'")
    browser.wait("document.getElementById('frame-shown').textContent === '10 of 10'")
    browser.wait("document.getElementById('play').textContent === 'Play'")
    assert pixel(browser, 100, 100) == last
    assert browser.value("document.querySelectorAll('i').length") == 0


def test_a_clip_that_is_none(server: Served, browser: Browser, tmp_path: Path, picture: None) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    browser.go(server.url)
    browser.wait("document.getElementById('model').options.length === 2")
    browser.choose("#file", path)
    browser.wait("document.getElementById('status').classList.contains('wrong')")
    assert "broken.mp4 is no image or clip" in browser.value("document.getElementById('status').textContent")
    assert browser.value("document.getElementById('player').hidden")


def test_the_webcam(server: Served, tmp_path: Path) -> None:
    flags = "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
    with Browser(tmp_path / "chromium", flags=flags) as with_camera:
        with_camera.go(server.url)
        with_camera.wait("document.getElementById('model').options.length === 2")
        with_camera.value("document.getElementById('webcam').click()")
        with_camera.wait("document.getElementById('status').textContent.includes('frames a second')", 60)
        first = with_camera.value("canvas.toDataURL()")
        with_camera.wait(f"canvas.toDataURL() !== {first!r}")
        assert with_camera.value("document.getElementById('webcam').getAttribute('aria-pressed')") == "true"
        with_camera.picture(Path(os.environ.get("EDGESEG_PICTURES", tmp_path)) / "test_the_webcam.png")
        with_camera.value("document.getElementById('webcam').click()")
        with_camera.wait("document.getElementById('status').textContent.includes('is off')")
        assert with_camera.console == []


def test_without_a_webcam_the_page_says_so(server: Served, browser: Browser, picture: None) -> None:
    browser.go(server.url)
    browser.wait("document.getElementById('model').options.length === 2")
    browser.value("document.getElementById('webcam').click()")
    browser.wait("document.getElementById('status').classList.contains('wrong')")
    assert "There is no webcam for this page" in browser.value("document.getElementById('status').textContent")
    assert browser.value("document.getElementById('webcam').getAttribute('aria-pressed')") == "false"


def test_the_live_view_of_a_running_stream(bundle: Path, browser: Browser, tmp_path: Path, picture: None) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = ["run", str(bundle), "--source", "synthetic://street?fps=10", "--sink", f"mjpeg://127.0.0.1:{port}"]
    command = [sys.executable, "-m", "edgeseg", *words]
    stream = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        lives = ("--live", f"gate=http://127.0.0.1:{port}", "--live", "gone=http://127.0.0.1:9/stream")
        with serving(tmp_path / "log", f"tiny={bundle}", *lives) as served:
            browser.go(served.url)
            browser.wait("document.getElementById('live').options.length === 3")
            browser.value("live.value = 'gone'; live.dispatchEvent(new Event('change')); 0")
            browser.wait("document.getElementById('status').classList.contains('wrong')")
            assert "cannot be shown" in browser.value("document.getElementById('status').textContent")
            end = time.monotonic() + 30
            while not browser.value("document.getElementById('stream').naturalWidth") and time.monotonic() < end:
                browser.value("live.value = 'gate'; live.dispatchEvent(new Event('change')); 0")
                time.sleep(0.5)
            assert browser.value("document.getElementById('stream').naturalWidth") > 0
            assert browser.value("document.getElementById('stream').alt") == "Live view of gate"
            browser.picture(Path(os.environ.get("EDGESEG_PICTURES", tmp_path)) / "live.png")
            browser.value("live.value = ''; live.dispatchEvent(new Event('change')); 0")
            assert browser.value("document.getElementById('stream').hidden")
            browser.console[:] = [text for text in browser.console if "ERR_" not in text]  # of the stream that is gone
    finally:
        stream.terminate()
        stream.wait(30)


def test_what_is_shown_can_be_downloaded(server: Served, browser: Browser, photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "downloads"
    folder.mkdir()
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.go(server.url)
    browser.wait("document.getElementById('model').options.length === 2")
    browser.choose("#file", photo)
    browser.wait(DONE)
    for button, ending in (("save-png", "-classes.png"), ("save-picture", "-overlay.png"), ("save-json", ".json")):
        browser.value(f"document.getElementById('{button}').click()")
        end = time.monotonic() + 20
        while not (found := list(folder.glob(f"*{ending}"))) and time.monotonic() < end:
            time.sleep(0.1)
        assert found, (button, list(folder.iterdir()))
    ids = cv2.imread(str(next(folder.glob("*-classes.png"))), cv2.IMREAD_COLOR)
    expected = cv2.imdecode(np.frombuffer(server.segment(photo.read_bytes()).body, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(ids, expected)
    assert json.loads(next(folder.glob("*.json")).read_text())["kind"] == "result"


@pytest.mark.parametrize("what", ["compare", "clip"])
def test_more_on_a_phone(server: Served, browser: Browser, photo: Path, film: Path, what: str, picture: None) -> None:
    browser.resize(390, 844, phone=True)
    browser.go(server.url)
    browser.wait("document.getElementById('model').options.length === 2")
    if what == "compare":
        browser.value("compare.value = 'other'")
        browser.choose("#file", photo)
        browser.wait(DONE)
    else:
        browser.choose("#file", film)
        browser.wait("document.getElementById('status').textContent.includes('10 frames')", 60)
    assert browser.value("document.documentElement.scrollWidth <= 390")
    shown = "[...document.querySelectorAll('button, select, .button')].filter(b => b.offsetParent)"
    assert min(browser.value(f"{shown}.map(b => b.getBoundingClientRect().height)")) >= 44
