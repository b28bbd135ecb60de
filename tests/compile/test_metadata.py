"""What OpenVINO and TFLite files say about a network: read beside its ONNX, named where such a file is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
flatbuffers = pytest.importorskip("flatbuffers", reason="needs the extra edgeseg[tflite]")

from edgeseg.compile import spec_of  # noqa: E402
from edgeseg.errors import FileError  # noqa: E402
from edgeseg.onnx_graph import load  # noqa: E402
from edgeseg.onnx_graph.model_info import of_ir, of_values  # noqa: E402
from edgeseg.onnx_graph.tflite_metadata import of_tflite  # noqa: E402

NAMES = tuple(f"k{i}" for i in range(8))
INFO = {
    "model_type": "Segmentation",
    "labels": " ".join(NAMES),
    "reverse_input_channels": "True",
    "mean_values": "127.5 127.5 127.5",
    "scale_values": "127.5",
    "resize_type": "fit_to_window_letterbox",
}
EXPECTED = ("RGB", (0.5,) * 3, (0.5,) * 3, NAMES)


def said(model: Path) -> tuple[Any, ...]:
    spec, assumed = spec_of(model, {})
    assert assumed == []
    return spec.color, spec.mean, spec.std, spec.classes


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny.network(tmp_path / "model.onnx", spec=None)


def ir_of(model: Path, info: dict[str, str]) -> Path:
    """The IR as OpenVINO itself writes it."""
    ov = pytest.importorskip("openvino")
    converted = ov.Core().read_model(model)
    for key, value in info.items():
        converted.set_rt_info(value, ["model_info", key])
    ov.save_model(converted, model.with_suffix(".xml"))
    return model.with_suffix(".xml")


def test_model_info_of_an_ir_is_read_beside_the_onnx(model: Path) -> None:
    path = ir_of(model, INFO)
    assert said(model) == EXPECTED and spec_of(model, {})[0].fit == "letterbox"
    with pytest.raises(FileError, match=r"is an OpenVINO IR, not an ONNX model") as refused:
        load(path)
    assert f"convert/bin/openvino2onnx {path} {model}" in refused.value.hint
    assert "It says: --color RGB --fit letterbox --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5 --classes" in refused.value.hint


def test_an_ir_without_model_info_says_nothing(model: Path) -> None:
    assert of_ir(ir_of(model, {})) is None
    assert [line.split()[0] for line in spec_of(model, {})[1]] == ["8", "color", "mean", "std"]


def test_model_info_in_the_onnx_itself(model: Path) -> None:
    graph = onnx.load(str(model))
    for key, value in INFO.items():
        graph.metadata_props.add(key=f"model_info {key}", value=value)
    onnx.save(graph, str(model))
    assert said(model) == EXPECTED


@pytest.mark.parametrize(
    ("info", "color", "mean", "std"),
    [
        ({}, None, None, None),
        ({"reverse_input_channels": "NO"}, "BGR", None, None),
        ({"scale_values": "255.0"}, None, (0, 0, 0), (1, 1, 1)),
        ({"mean_values": "[103.53, 116.28, 123.675]"}, None, (0.406, 0.456, 0.485), (1 / 255,) * 3),
        ({"mean_values": "1 2", "scale_values": "x"}, None, None, None),
        ({"scale_values": "255", "embedded_processing": "True"}, None, None, None),  # of the IR, not of its ONNX
    ],
)
def test_model_info_leaves_open_what_it_does_not_say(info: dict[str, str], color: Any, mean: Any, std: Any) -> None:
    found = of_values(info)
    assert found.color == color and found.classes is None
    assert found.mean == (pytest.approx(mean) if mean else None) and found.std == (pytest.approx(std) if std else None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<net><rt_info>", "cannot be read: no element found"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><net/>', "it defines ent"),
    ],
)
def test_an_ir_that_cannot_be_read_is_named(text: str, message: str, model: Path) -> None:
    model.with_suffix(".xml").write_text(text)
    with pytest.raises(FileError, match=message):
        spec_of(model, {})


# TFLite. Numbers are the slots of TensorFlow's metadata_schema.fbs.


def table(builder: Any, fields: dict[int, Any]) -> int:
    """A FlatBuffer table of texts, bytes, whole numbers of one byte, tables, and lists of numbers or tables."""
    made = {}
    for slot, value in fields.items():
        if isinstance(value, str):
            made[slot] = builder.CreateString(value)
        elif isinstance(value, bytes):
            made[slot] = builder.CreateByteVector(value)
        elif isinstance(value, dict):
            made[slot] = table(builder, value)
        elif isinstance(value, list):
            items = [table(builder, item) if isinstance(item, dict) else item for item in value]
            builder.StartVector(4, len(items), 4)
            for item in reversed(items):
                builder.PrependFloat32(item) if isinstance(item, float) else builder.PrependUOffsetTRelative(item)
            made[slot] = builder.EndVector()
    builder.StartObject(max(fields, default=0) + 1)
    for slot, value in fields.items():
        if isinstance(value, int):
            builder.PrependUint32Slot(slot, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, made[slot], 0)
    return int(builder.EndObject())


def finished(fields: dict[int, Any]) -> bytes:
    builder = flatbuffers.Builder()
    builder.Finish(table(builder, fields), file_identifier=b"TFL3")
    return bytes(builder.Output())


def lite(path: Path, mean: list[float], std: list[float], labels: str = "") -> Path:
    image = {3: {0: 2, 1: {0: 1}}, 4: [{0: 1, 1: {0: mean, 1: std}}]}
    output = {6: [{0: "labels.txt", 2: 2}]}
    metadata = finished({3: [{2: [image], 3: [output]}]})
    path.write_bytes(finished({4: [{}, {0: metadata}], 6: [{0: "other", 1: 0}, {0: "TFLITE_METADATA", 1: 1}]}))
    if labels:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("labels.txt", labels)
    return path


@pytest.mark.parametrize(("mean", "std"), [([127.5], [127.5]), ([127.5] * 3, [127.5] * 3)])
def test_metadata_of_a_tflite_file_is_read_beside_the_onnx(mean: list[float], std: list[float], model: Path) -> None:
    path = lite(model.with_suffix(".tflite"), mean, std, "\n".join(NAMES))
    assert said(model) == EXPECTED
    with pytest.raises(FileError, match=r"is a TFLite model(.|\n)*It says: --color RGB --mean 0.5,0.5,0.5") as refused:
        load(path)
    assert f"-m tf2onnx.convert --tflite {path} --output {model}" in refused.value.hint


def test_a_tflite_file_without_labels_or_metadata(tmp_path: Path) -> None:
    found = of_tflite(lite(tmp_path / "a.tflite", [0.0], [255.0]))
    assert found is not None and found.classes is None and (found.mean, found.std) == ((0, 0, 0), (1, 1, 1))
    (tmp_path / "b.tflite").write_bytes(finished({4: [{}]}))
    assert of_tflite(tmp_path / "b.tflite") is None


@given(st.data())
def test_any_damage_of_a_tflite_file_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    whole = lite(tmp_path / "a.tflite", [1.0, 2.0, 3.0], [4.0, 5.0, 6.0], "a\nb").read_bytes()
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for at in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=4)) if damaged else ():
        damaged[at] = data.draw(st.integers(0, 255))
    (tmp_path / "b.tflite").write_bytes(bytes(damaged))
    try:
        of_tflite(tmp_path / "b.tflite")
    except FileError as error:
        assert "b.tflite" in error.what
