"""The web page in a real browser: drop an image, toggle classes, keys, a phone, hostile names, errors.

Set EDGESEG_PICTURES to a folder to keep pictures of it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import browser as browsers
import cv2
import numpy as np
import pytest
import tiny
from browser import Browser
from serving_helpers import Served, serving

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


def test_by_keyboard_alone(server: Served, browser: Browser, photo: Path, picture: None) -> None:
    browser.go(server.url)
    browser.wait("document.getElementById('model').options.length === 2")
    browser.press("Tab", 9)
    order = [browser.value("document.activeElement.id")]
    browser.press("Tab", 9)
    order.append(browser.value("document.activeElement.id"))
    browser.choose("#file", photo)
    browser.wait(DONE)
    for _ in range(3):
        browser.press("Tab", 9)
        order.append(browser.value("document.activeElement.id"))
    assert order[:3] == ["model", "file", "opacity"]
    assert order[3].startswith("class-") and order[4].startswith("class-")
    before = browser.value(f"document.getElementById('{order[4]}').checked")
    browser.press(" ", 32, " ")
    assert browser.value(f"document.getElementById('{order[4]}').checked") is not before


def test_on_a_phone(server: Served, browser: Browser, photo: Path, picture: None) -> None:
    browser.resize(390, 844, phone=True)
    browser.go(server.url)
    browser.wait("document.getElementById('model').options.length === 2")
    browser.choose("#file", photo)
    browser.wait(DONE)
    assert browser.value("document.documentElement.scrollWidth <= 390")
    heights = browser.value("[...document.querySelectorAll('button')].map(b => b.getBoundingClientRect().height)")
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
        assert browser.value("document.querySelectorAll('img').length") == 0
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
