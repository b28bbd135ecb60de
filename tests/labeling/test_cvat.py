"""label push and pull with CVAT's own SDK, against a stand-in of its REST interface: no CVAT server was there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tiny

sys.path.insert(0, str(Path(__file__).parent))
from cvat_standin import TOKEN, StandIn

from edgeseg.data.dataset import Dataset
from edgeseg.images import read_mask
from edgeseg.monitoring.ring import Ring
from edgeseg.result import Frame, Result

Edgeseg = Callable[..., Any]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    pytest.importorskip("cvat_sdk", reason="needs edgeseg[cvat]")
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", TOKEN)
    with StandIn() as one:
        yield one


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Four collected frames, the last of most worth."""
    ring = Ring(tmp_path / "gate", tiny.SPEC, 10**8)
    for i, image in enumerate(tiny.frames(4, seed=3)):
        classmap = np.zeros((tiny.HEIGHT, tiny.WIDTH), np.uint8)
        classmap[:, 40:] = i + 1
        ring.add(Result(Frame(image, i), classmap, {}, None, tiny.SPEC), "front", {"uncertain": i / 10}, 1.8e9)
    return tmp_path / "gate"


def test_frames_and_labels_arrive(server: StandIn, collection: Path, edgeseg: Edgeseg) -> None:
    result = edgeseg("label", "push", collection, "--url", server.url, "--json", "-")
    assert result.code == 0, result.err
    images = Dataset.open(collection, "train").images
    assert server.frames == {image.name: image.read_bytes() for image in images}
    assert server.task["name"] == "gate"
    assert [label["name"] for label in server.task["labels"]][: len(tiny.SPEC.classes)] == list(tiny.SPEC.classes)
    assert all(label["color"].startswith("#") for label in server.task["labels"])
    drawn = ElementTree.fromstring(server.annotations)
    assert [image.get("name") for image in drawn.iter("image")] == [image.name for image in images]
    assert server.finish["annotations"]["format"] == ["CVAT 1.1"]
    assert server.finish["data"]["sorting_method"] == "predefined"
    remembered = json.loads((collection / "cvat.json").read_text())
    assert (remembered["task"], remembered["frames"], remembered["url"]) == (7, 4, server.url)
    assert TOKEN not in (collection / "cvat.json").read_text() + result.out + result.err


def test_corrections_come_back(server: StandIn, collection: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    assert edgeseg("label", "push", collection, "--url", server.url, "--frames", 2).code == 0
    document = ElementTree.fromstring(server.annotations)
    first = next(document.iter("image"))
    for mask in list(first.iter("mask")):
        mask.set("label", "sky")
    server.annotations = ElementTree.tostring(document)
    result = edgeseg("label", "pull", collection, "--out", tmp_path / "labeled", "--json", "-")
    assert result.code == 0, result.err
    assert json.loads(result.out)["frames"] == 2 and len(json.loads(result.out)["missing"]) == 2
    corrected = read_mask(tmp_path / "labeled/train/masks" / f"{Path(str(first.get('name'))).stem}.png")
    assert set(np.unique(corrected)) == {tiny.SPEC.classes.index("sky")}


def test_a_second_push_is_refused(server: StandIn, collection: Path, edgeseg: Edgeseg) -> None:
    assert edgeseg("label", "push", collection, "--url", server.url).code == 0
    again = edgeseg("label", "push", collection, "--url", server.url)
    assert again.code == 2 and "remembers a task" in again.err


def test_the_wrong_token(server: StandIn, collection: Path, monkeypatch: pytest.MonkeyPatch, edgeseg: Edgeseg) -> None:
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", "secret-but-wrong")
    result = edgeseg("label", "push", collection, "--url", server.url)
    assert result.code == 2 and "answered 401" in result.err and "Check the access token" in result.err
    assert "secret" not in result.err and not (collection / "cvat.json").exists()


def test_a_server_that_fails(server: StandIn, collection: Path, edgeseg: Edgeseg) -> None:
    server.broken = True
    result = edgeseg("label", "push", collection, "--url", server.url)
    assert result.code == 2 and "answered 507" in result.err and "Traceback" not in result.err
    assert not (collection / "cvat.json").exists()


def test_no_server(server: StandIn, collection: Path, edgeseg: Edgeseg) -> None:
    result = edgeseg("label", "push", collection, "--url", "http://127.0.0.1:9")
    assert result.code == 2 and "http://127.0.0.1:9 failed" in result.err and "Traceback" not in result.err


def test_another_server(server: StandIn, collection: Path, edgeseg: Edgeseg) -> None:
    server.about = {"hello": "world"}
    result = edgeseg("label", "push", collection, "--url", server.url)
    assert result.code == 2 and "is no CVAT server" in result.err and "Traceback" not in result.err


def test_nothing_was_pushed(server: StandIn, collection: Path, tmp_path: Path, edgeseg: Edgeseg) -> None:
    result = edgeseg("label", "pull", collection, "--out", tmp_path / "out")
    assert result.code == 2 and "cvat.json does not exist" in result.err


def test_without_a_login(collection: Path, monkeypatch: pytest.MonkeyPatch, edgeseg: Edgeseg) -> None:
    for name in ("CVAT_ACCESS_TOKEN", "CVAT_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    result = edgeseg("label", "push", collection, "--url", "http://127.0.0.1:9", "--user", "me")
    assert result.code == 2 and "Set CVAT_ACCESS_TOKEN" in result.err


def test_without_the_sdk(collection: Path, monkeypatch: pytest.MonkeyPatch, edgeseg: Edgeseg) -> None:
    monkeypatch.setitem(sys.modules, "cvat_sdk", None)
    monkeypatch.setenv("CVAT_ACCESS_TOKEN", TOKEN)
    result = edgeseg("label", "push", collection, "--url", "http://127.0.0.1:9")
    assert result.code == 2 and "pip install 'edgeseg[cvat]'" in result.err
