"""models list and get: files of stand-ins with the published architectures, served on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

import edgeseg.training
from edgeseg import zoo
from edgeseg.bundle import Bundle
from edgeseg.cli import app
from edgeseg.errors import FileError, OptionError
from edgeseg.spec import ONNX_KEY
from edgeseg.zoo.download import fetch

torchvision = pytest.importorskip("torchvision")
assert edgeseg.training
SPEC = 'height = 64\nwidth = 96\nclasses = ["background", "cat", "dog"]\n'


class Author(BaseHTTPRequestHandler):
    """Files of a folder, whole or from an offset; `cut`: how many bytes of each answer come through."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    cut: int | None = None
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        data = self.files.get(self.path.lstrip("/"))
        self.asked.append(self.headers.get("Range", ""))
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "ftp://example.org/model.onnx")
            self.end_headers()
        elif data is None:
            self.send_error(404)
        else:
            start = int(self.headers.get("Range", "bytes=0-").split("=")[1].rstrip("-"))
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start : start + self.cut] if self.cut else data[start:])

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def author(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server of published files."""
    monkeypatch.setattr(Author, "files", {})
    monkeypatch.setattr(Author, "asked", [])
    monkeypatch.setattr(Author, "cut", None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Author)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose tables are the published models."""
    folder = tmp_path / "tables"
    folder.mkdir()
    monkeypatch.setattr(zoo, "FOLDERS", [folder])
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A state dict as torchvision publishes them, with random values."""
    torch.manual_seed(0)
    model = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=3
    )
    path = tmp_path_factory.mktemp("weights") / "lraspp.pth"
    torch.save(model.state_dict(), path)
    return path.read_bytes()


def publish(tables: Path, author: str, files: dict[str, bytes], spec: str = SPEC, **changes: object) -> None:
    """A table for the model `pets`, and its files at the author's."""
    values = {
        "title": "Pets", "source": "https://example.org/pets", "license": "MIT", "data": "pictures of pets",
        "commercial": "ask", "format": "torchvision", "builder": "lraspp_mobilenet_v3_large", **changes,
    }  # fmt: skip
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    for name, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        lines.append(f'[[files]]\nname = "{name}"\nurl = "{author}/{name}"\nsha256 = "{digest}"')
        Author.files[name] = data
    (tables / "pets.toml").write_text("\n".join(lines) + (f"\n[spec]\n{spec}" if spec else "\n"))


def edgeseg_models(*words: object) -> Result:
    return CliRunner().invoke(app, ["models", *map(str, words)])


def test_every_table_is_complete() -> None:
    assert len(zoo.names()) >= 8
    for name in zoo.names():
        model = zoo.PublishedModel.load(name)
        assert model.source.startswith("https://")
        assert all(file.url.startswith("https://") for file in model.files)
        assert all(file.sha256 == file.sha256.lower() and len(file.sha256) in (0, 8, 64) for file in model.files)
        if model.format == "torchvision":
            assert hasattr(torchvision.models.segmentation, model.builder)
        if model.format != "hugging-face":
            assert model.own_spec().classes


def test_the_list_says_what_is_allowed() -> None:
    result = edgeseg_models("list", "--json", "-")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert rows["segformer-b0-cityscapes"]["commercial"] == "no"
    assert rows["pp-humanseg"]["license"] == "Apache-2.0"
    assert set(rows) == set(zoo.names())


def test_a_network_of_torchvision_becomes_a_bundle(tables: Path, author: str, weights: bytes, tmp_path: Path) -> None:
    publish(tables, author, {"lraspp.pth": weights})
    out = tmp_path / "pets"

    result = edgeseg_models("get", "pets", "--out", out, "--target", "openvino-cpu")

    assert result.exit_code == 0, (result.output, result.exception)
    bundle = Bundle.load(out / "pets-fp32")
    assert bundle.spec.classes == ("background", "cat", "dog")
    assert bundle.manifest.parity is not None and bundle.manifest.parity.agreement > 0.999
    source = json.loads((out / "source.json").read_text())
    assert source["sha256"]["lraspp.pth"] == hashlib.sha256(weights).hexdigest()
    assert source["license"] == "MIT"


def test_an_onnx_file_gets_its_spec(tables: Path, author: str, weights: bytes, tmp_path: Path) -> None:
    publish(tables, author, {"lraspp.pth": weights})
    assert edgeseg_models("get", "pets", "--out", tmp_path / "first").exit_code == 0
    plain = onnx.load(tmp_path / "first" / "pets.onnx")
    del plain.metadata_props[:]
    publish(tables, author, {"pets.onnx": plain.SerializeToString()}, format="onnx", builder="")

    result = edgeseg_models("get", "pets", "--out", tmp_path / "second")

    assert result.exit_code == 0, (result.output, result.exception)
    stored = {p.key: p.value for p in onnx.load(tmp_path / "second" / "pets.onnx").metadata_props}
    assert json.loads(stored[ONNX_KEY])["classes"] == ["background", "cat", "dog"]


def test_copies_need_no_network(tables: Path, author: str, weights: bytes, tmp_path: Path) -> None:
    publish(tables, author, {"lraspp.pth": weights})
    (tmp_path / "lraspp.pth").write_bytes(weights)

    result = edgeseg_models("get", "pets", "--out", tmp_path / "pets", "--from", tmp_path)

    assert result.exit_code == 0, (result.output, result.exception)
    assert Author.asked == []


def test_a_download_goes_on_where_it_stopped(tables: Path, author: str, tmp_path: Path) -> None:
    data = bytes(range(256)) * 8000
    publish(tables, author, {"big.bin": data})
    model = zoo.PublishedModel.load("pets")
    Author.cut = 1_200_000
    with pytest.raises(FileError, match=r"(?s)ended after 1200000 of 2048000 bytes.*goes on"):
        fetch(model, tmp_path)
    assert not (tmp_path / "big.bin").exists()

    fetch(model, tmp_path)

    assert (tmp_path / "big.bin").read_bytes() == data
    assert Author.asked == ["", "bytes=1200000-"]
    fetch(model, tmp_path)
    assert len(Author.asked) == 2  # it is there


def test_replaced_files_are_not_kept(tables: Path, author: str, tmp_path: Path) -> None:
    publish(tables, author, {"big.bin": b"right" * 100})
    Author.files["big.bin"] = b"wrong" * 100
    with pytest.raises(FileError, match=r"(?s)has SHA-256 .*, its author states .*damaged or replaced"):
        fetch(zoo.PublishedModel.load("pets"), tmp_path)
    assert list(tmp_path.glob("big*")) == []


def test_files_without_a_stated_digest_need_a_word(tables: Path, author: str, weights: bytes, tmp_path: Path) -> None:
    publish(tables, author, {"lraspp.pth": weights})
    table = tables / "pets.toml"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if not line.startswith("sha256")))

    refused = edgeseg_models("get", "pets", "--out", tmp_path / "pets")
    assert isinstance(refused.exception, OptionError)
    assert "states no digest" in str(refused.exception) and Author.asked == []
    assert edgeseg_models("get", "pets", "--out", tmp_path / "pets", "--unverified").exit_code == 0


def test_weights_of_another_network(tables: Path, author: str, weights: bytes, tmp_path: Path) -> None:
    publish(tables, author, {"lraspp.pth": weights}, builder="fcn_resnet50")
    result = edgeseg_models("get", "pets", "--out", tmp_path / "pets")
    assert isinstance(result.exception, FileError)
    assert "do not fit fcn_resnet50" in str(result.exception)
    assert not list((tmp_path / "pets").glob("*.onnx"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.org/model.onnx", "is not fetched"),
        ("file:///etc/passwd", "is not fetched"),
        ("AUTHOR/elsewhere", "ftp://example.org/model.onnx is not fetched"),
        ("AUTHOR/nothing", "404"),
        ("http://127.0.0.1:9/model.onnx", "cannot be fetched"),
    ],
)
def test_addresses_that_cannot_be_used(url: str, message: str, author: str, tmp_path: Path) -> None:
    file = zoo.RemoteFile("model.onnx", url.replace("AUTHOR", author))
    model = zoo.PublishedModel("pets", "Pets", "", "", "", "ask", "onnx", (file,))
    with pytest.raises((OptionError, FileError), match=message):
        fetch(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_more_bytes_than_stated(author: str, tmp_path: Path) -> None:
    Author.files["model.onnx"] = bytes(3000)
    file = zoo.RemoteFile("model.onnx", f"{author}/model.onnx", size=2000)
    with pytest.raises(FileError, match="more than 2000 bytes"):
        fetch(zoo.PublishedModel("pets", "Pets", "", "", "", "ask", "onnx", (file,)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name() -> None:
    result = edgeseg_models("get", "lraspp")
    assert isinstance(result.exception, OptionError)
    assert "Did you mean 'lraspp-voc'" in str(result.exception)


def test_tables_with_other_values(tables: Path, author: str) -> None:
    publish(tables, author, {"pets.zip": b"PK"}, format="zip")
    with pytest.raises(OptionError, match="format is 'zip'"):
        zoo.PublishedModel.load("pets")
