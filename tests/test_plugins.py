"""A backend with its own INT8, source, sink, family, head and exporter are one new file each, named nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import tiny

from edgeseg import backends, exporters, heads, target
from edgeseg.bundle import Manifest, seal
from edgeseg.precision import Precision
from edgeseg.quantization import schemes
from edgeseg.runtime import open_segmenter
from edgeseg.spec import Spec
from edgeseg.stream import sinks, sources
from edgeseg.training import families

BACKEND = """
from edgeseg.backends import onnxruntime

PACKAGE = "onnxruntime"
probe, compile, open = onnxruntime.probe, onnxruntime.compile, onnxruntime.open
"""
SCHEME = """
from edgeseg.quantization.scheme import Scheme
from edgeseg.quantization.schemes import qdq

SCHEME = Scheme(title="the toy's rules", ranges=("mse", "minmax"), quantize=qdq.quantize, rounds_output=True)
"""
TARGET = """
title = "A toy board"
backend = "toy"
device = "CPU"
precisions = ["fp32", "int8"]
quantizer = "toy_rules"
"""
SOURCE = """
from edgeseg.result import Frame
from edgeseg.stream.sources import EndOfStream, Source
import numpy as np

FORMS, CAMERA = "toy://COUNT", False


def claims(uri):
    return uri.scheme == "toy"


class Toy(Source):
    def __init__(self, count):
        super().__init__()
        self.left = count

    def read(self, timeout):
        if not self.left:
            raise EndOfStream
        self.left -= 1
        return Frame(np.full((64, 96, 3), self.left, np.uint8))


def open(uri):
    return Toy(3)
"""
SINK = """
from edgeseg.stream.sinks import Sink

FORMS = "toysink://"
taken = []


def claims(uri):
    return uri.scheme == "toysink"


class Toy(Sink):
    def write(self, result, picture):
        taken.append(int(result.classmap.max()))


def open(uri, info):
    return Toy()
"""
FAMILY = """
from torch import nn

ENCODERS = False


def build(classes, width, encoder):
    net = nn.Sequential(nn.Conv2d(3, classes, 1))
    net.classifier = [net[0]]
    return net
"""
EXPORTER = """
TITLE = "A toy server"


def refuse(bundle):
    pass


def write(bundle, name, out):
    (out / f"{name}.toy").write_bytes(bundle.read("model.xml"))
    return f"toy {out}"
"""
# K queries, each with class scores and a mask: class map = argmax over classes of sum over queries.
HEAD = """
import numpy as np
from edgeseg.heads import Prediction


class Queries:
    outputs = ("classes", "masks")

    def __init__(self, spec):
        self.height, self.width = spec.height, spec.width

    def decode(self, outputs, margin=False):
        scores = np.einsum("kc,khw->chw", outputs["classes"], outputs["masks"])
        rows = np.arange(self.height) * scores.shape[1] // self.height
        columns = np.arange(self.width) * scores.shape[2] // self.width
        return Prediction(scores.argmax(0).astype(np.uint8)[np.ix_(rows, columns)])


def open(spec, upsample):
    return Queries(spec)
"""


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType, str, str], None]:
    """add(package, name, text): a module in a folder outside edgeseg that the package finds too."""

    def put(package: ModuleType, name: str, text: str) -> None:
        folder = tmp_path / package.__name__
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
        monkeypatch.delitem(__import__("sys").modules, f"{package.__name__}.{name}", raising=False)

    return put


def test_a_server_to_export_to_is_one_module(
    add: Callable[..., None], bundle: Path, tmp_path: Path, edgeseg: Callable[..., object]
) -> None:
    add(exporters, "toy", EXPORTER)
    assert "toy" in exporters.names()
    ran = edgeseg("export", bundle, "--format", "toy", "--out", tmp_path / "out", "--name", "street")
    assert ran.code == 0, ran.err  # type: ignore[attr-defined]
    assert (tmp_path / "out/street.toy").read_bytes() == (bundle / "model.xml").read_bytes()


def test_a_backend_with_its_own_int8_is_two_modules_and_a_table(
    add: Callable[..., None],
    network: Path,
    street: Path,
    tmp_path: Path,
    edgeseg: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add(backends, "toy", BACKEND)
    add(schemes, "toy_rules", SCHEME)
    (tmp_path / "toy-board.toml").write_text(TARGET)
    monkeypatch.setattr(target, "FOLDERS", [*target.FOLDERS, tmp_path])
    out = tmp_path / "bundle"
    result = edgeseg("compile", network, "-t", "toy-board", "-p", "int8", "--calibration", street, "-o", out)
    assert result.code == 0, result.err
    manifest = json.loads((out / "bundle.json").read_text())
    assert (manifest["backend"], manifest["ptq"]["ranges"]) == ("toy", "mse")
    for words in (("verify", out), ("eval", out, "--data", street), ("sensitivity", network, "-t", "toy-board",
                  "--calibration", street)):  # fmt: skip
        result = edgeseg(*words)
        assert result.code == 0, result.err
    assert "toy-board" in edgeseg("targets").out


def test_a_source_and_a_sink_are_a_module_each(
    add: Callable[..., None], bundle: Path, edgeseg: Callable[..., object]
) -> None:
    add(sources, "toy", SOURCE)
    add(sinks, "toysink", SINK)
    result = edgeseg("run", bundle, "--source", "toy://3", "--sink", "toysink://")
    assert result.code == 0, result.err
    assert len(sinks.find("toysink://")[0].taken) == 3


def test_a_family_is_a_module(add: Callable[..., None]) -> None:
    add(families, "toy", FAMILY)
    assert "toy" in families.names()
    assert families.get("toy").build(4, 1.0, "")[0].out_channels == 4


def test_a_head_is_a_module_and_reads_the_outputs_it_names(add: Callable[..., None], tmp_path: Path) -> None:
    """Three queries by hand, through a real engine with two outputs, a bundle and the Segmenter."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    add(heads, "queries", HEAD)
    classes = np.array([[4, 0, 0], [0, 4, 0], [0, 0, 4]], np.float32)[None]
    masks = np.zeros((1, 3, 4, 6), np.float32)
    masks[0, 0], masks[0, 1, :, 3:], masks[0, 2, 2:, :2] = 0.1, 1, 1
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["class_scores", "nothing"], ["classes"]),
        helper.make_node("Add", ["mask_scores", "nothing"], ["masks"]),
    ]
    weights = {"zero": np.float32(0), "class_scores": classes, "mask_scores": masks}
    graph = helper.make_graph(
        nodes,
        "queries",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 8, 12, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("classes", "masks")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(tmp_path / "model.onnx"))
    spec = Spec(8, 12, ("wall", "door", "floor"), task="queries")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "model.onnx").rename(tmp_path / "bundle" / "model.onnx")
    seal(
        tmp_path / "bundle",
        Manifest(name="queries", spec=spec, target="onnxruntime-cpu", backend="onnxruntime", precision=Precision.FP32,
                 upsample="none", files={}),
    )  # fmt: skip
    with open_segmenter(tmp_path / "bundle") as segmenter:
        result = segmenter(cv2.resize(tiny.frames(1)[0], (12, 8))).classmap
    expected = np.zeros((8, 12), np.uint8)
    expected[:, 6:], expected[4:, :4] = 1, 2
    np.testing.assert_array_equal(result, expected)


def test_an_unknown_task_names_the_known_ones(bundle: Path, tmp_path: Path, edgeseg: Callable[..., object]) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["spec"]["task"] = "semantics"
    (copy / "bundle.json").write_text(json.dumps(manifest))
    result = edgeseg("verify", copy)
    assert result.code == 2
    assert "Unknown task 'semantics'.\nDid you mean 'semantic'? Known: panoptic, semantic." in result.err


FORMAT = """
from pathlib import Path

import numpy as np

from edgeseg.data.dataset import Classes
from edgeseg.data.formats import LabeledFrame, Labels

TITLE = "a toy"


def probe(source):
    return source.suffix == ".toy"


def read(source):
    image = source.with_suffix(".png")
    classes = Classes(("a", "b"), ((0, 0, 0), (255, 0, 0)), None)
    return Labels(classes, [LabeledFrame("one", image, lambda: np.eye(8, dtype=np.uint8), "test")], ("colors",))
"""


def test_an_importer_is_a_module(add: Callable[..., None], tmp_path: Path, edgeseg: Callable[..., object]) -> None:
    from edgeseg.data import formats
    from edgeseg.images import write_image

    add(formats, "toy", FORMAT)
    (tmp_path / "labels.toy").write_text("x")
    write_image(tmp_path / "labels.png", np.zeros((8, 8, 3), np.uint8))
    result = edgeseg("data", "import", tmp_path / "labels.toy", "--out", tmp_path / "out", "--json", "-")
    assert result.code == 0, result.err
    assert {k: v for k, v in json.loads(result.out).items() if k in ("format", "frames", "losses")} == {
        "format": "toy", "frames": 1, "losses": ["colors"],
    }  # fmt: skip
