"""The review page in a real browser, and what its server refuses."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser as browsers
import numpy as np
import pytest
import tiny

from edgeseg.data.dataset import Classes, Dataset
from edgeseg.errors import FileError
from edgeseg.images import write_image
from edgeseg.labeling.review import Review, ReviewServer


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Three frames, each road with two separate cars, and why the first was kept."""
    root = tmp_path / "collected"
    for i, image in enumerate(tiny.frames(3, seed=3)):
        mask = np.zeros((tiny.HEIGHT, tiny.WIDTH), np.uint8)
        mask[8:24, 8:40] = mask[40:56, 56:88] = 6
        write_image(root / "train" / "images" / f"f{i}.jpg", image)
        write_image(root / "train" / "masks" / f"f{i}.png", mask)
    (root / "classes.txt").write_text(Classes(tiny.SPEC.classes, tiny.SPEC.palette, 255).text())
    (root / "collected.jsonl").write_text('{"name": "f0", "why": {"uncertain": 0.97}}\n{"name": "cut')
    return root


@pytest.fixture
def server(collection: Path, tmp_path: Path) -> Iterator[ReviewServer]:
    with ReviewServer(Review(collection, tmp_path / "out"), 0) as running:
        yield running


def ask(server: ReviewServer, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        text = None if body is None else json.dumps(body)
        kind = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, text, {**kind, **headers})
        answer = connection.getresponse()
        data = answer.read()
        return answer.status, json.loads(data) if answer.headers["Content-Type"] == "application/json" else data
    finally:
        connection.close()


def test_accept_fix_and_reject_in_a_browser(server: ReviewServer, collection: Path, tmp_path: Path) -> None:
    if not browsers.NAME:
        pytest.skip("no chromium")
    with browsers.Browser(tmp_path / "profile") as browser:
        browser.go(f"http://127.0.0.1:{server.port}/")
        browser.wait("document.getElementById('overlay').naturalWidth === 96")
        assert browser.value("document.getElementById('left').textContent") == "3 frames left"
        assert browser.value("document.getElementById('why').textContent") == "uncertain"
        click = """(() => { document.querySelector('input[name=class][value="7"]').click();
            const box = document.getElementById('overlay').getBoundingClientRect();
            document.getElementById('overlay').dispatchEvent(new MouseEvent('click', {bubbles: true,
              clientX: box.left + box.width * 0.2, clientY: box.top + box.height * 0.2})); return 1; })()"""
        browser.value(click)
        browser.wait("document.getElementById('overlay').src.endsWith('v=2')")
        browser.value("document.getElementById('accept').click()")
        browser.wait("document.getElementById('name').textContent === 'f1'")
        browser.value("document.getElementById('reject').click()")
        browser.wait("document.getElementById('name').textContent === 'f2'")
        assert browser.console == []
    accepted = Dataset.open(tmp_path / "out", "train")
    assert [image.stem for image in accepted.images] == ["f0"]
    mask = accepted.mask(0)
    assert (mask[8:24, 8:40] == 7).all() and (mask[40:56, 56:88] == 6).all() and (mask == 7).sum() == 16 * 32
    assert (Dataset.open(collection, "train").mask(0)[8:24, 8:40] == 6).all(), "the collection stays as it is"
    again = Review(collection, tmp_path / "out")
    assert (again.summary().accepted, again.summary().rejected, again.summary().left) == (1, 1, 1)
    assert [frame["name"] for frame in again.frames()["frames"]] == ["f2"]


def test_fixes_can_be_undone(server: ReviewServer, tmp_path: Path) -> None:
    for path, more in (("/fix", {"x": 0.2, "y": 0.2, "class": 3}), ("/undo", {}), ("/decide", {"decision": "accept"})):
        assert ask(server, "POST", path, {"name": "f1", **more})[0] == 200
    assert (Dataset.open(tmp_path / "out", "train").mask(0)[8:24, 8:40] == 6).all()


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "message"),
    [
        ("/decide", {"name": "../f0", "decision": "accept"}, {}, 409, "There is no frame '../f0'."),
        ("/decide", {"name": "f0", "decision": "delete"}, {}, 409, "Unknown decision 'delete'."),
        ("/fix", {"name": "f0", "x": 1.5, "y": 0, "class": 1}, {}, 409, "That is no place in the frame, or no class."),
        ("/fix", {"name": "f0", "x": 0.5, "y": 0, "class": 99}, {}, 409, "That is no place in the frame, or no class."),
        ("/fix", {"name": "f0"}, {}, 400, "The request is not understood."),
        ("/fix", ["f0"], {}, 400, "The request is not understood."),
        ("/decide", {"name": "f0" * 4000}, {}, 400, "The request is not understood."),
        ("/nothing", {"name": "f0"}, {}, 404, "There is no such page."),
        ("/decide", {"name": "f0", "decision": "accept"}, {"Origin": "http://evil.example"}, 409, "does not come from"),
        ("/decide", {"name": "f0", "decision": "accept"}, {"Host": "evil.example"}, 409, "does not come from"),
        ("/decide", {"name": "f0", "decision": "accept"}, {"Content-Type": "text/plain"}, 409, "does not come from"),
    ],
)
def test_what_the_server_refuses(
    server: ReviewServer, tmp_path: Path, path: str, body: object, headers: dict[str, str], status: int, message: str
) -> None:
    found, answer = ask(server, "POST", path, body, **headers)
    assert found == status and message in answer["error"]
    assert not (tmp_path / "out" / "train").exists()


def test_pages_that_are_not_there(server: ReviewServer) -> None:
    assert ask(server, "GET", "/../review.py")[0] == 404
    assert ask(server, "GET", "/image?name=..%2Fclasses")[0] == 404
    assert ask(server, "GET", "/frames", Host="evil.example")[0] == 403


def test_a_frame_that_was_deleted_meanwhile(server: ReviewServer, collection: Path, tmp_path: Path) -> None:
    (collection / "train" / "images" / "f1.jpg").unlink()
    status, answer = ask(server, "GET", "/image?name=f1")
    assert status == 404 and answer["error"] == "f1.jpg was removed meanwhile."
    status, answer = ask(server, "POST", "/decide", {"name": "f1", "decision": "accept"})
    assert status == 409 and answer["error"] == "f1.jpg was removed meanwhile."
    assert ask(server, "POST", "/decide", {"name": "f1", "decision": "reject"})[0] == 200


def test_a_dataset_of_other_classes_is_not_written_to(collection: Path, tmp_path: Path) -> None:
    shutil.copytree(collection, tmp_path / "other")
    (tmp_path / "other" / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(FileError, match=r"is a dataset of other classes\.\nChoose another folder"):
        Review(collection, tmp_path / "other")


def test_the_command_ends_with_a_summary(collection: Path, tmp_path: Path) -> None:
    words = ["label", "review", str(collection), "--out", str(tmp_path / "out"), "--json", str(tmp_path / "r.json")]
    process = subprocess.Popen([sys.executable, "-m", "edgeseg", *words], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "review at" in line)
        connection = http.client.HTTPConnection("127.0.0.1", int(line.rstrip().rstrip("/").rpartition(":")[2]))
        connection.request("GET", "/frames")
        assert len(json.loads(connection.getresponse().read())["frames"]) == 3
        connection.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert json.loads((tmp_path / "r.json").read_text()) == {"accepted": 0, "rejected": 0, "left": 3}
