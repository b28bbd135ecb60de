"""ONNX files that were cut short or garbled: FileError, OptionError or a bundle, never another exception."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto, numpy_helper

from edgeseg import onnx_graph
from edgeseg.compile import compile_model, spec_of
from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.target import Target


def attempt(data: bytes, folder: Path) -> None:
    """What the command line does with a model before a backend sees it."""
    path = folder / "garbled.onnx"
    path.write_bytes(data)
    try:
        spec, _ = spec_of(path, {})
        onnx_graph.deploy_graph(onnx_graph.load(path), spec)
    except (FileError, OptionError) as error:
        assert error.what and error.hint


@settings(max_examples=40)
@given(st.data())
def test_cut_short(network: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = network.read_bytes()
    attempt(whole[: data.draw(st.integers(0, len(whole) - 1))], tmp_path)


@settings(max_examples=250)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_garbled(network: Path, tmp_path: Path, seed: int, changes: int) -> None:
    """Bytes of the structure are changed; the weights' own bytes would only be other weights."""
    data = bytearray(small(network))
    random = np.random.default_rng(seed)
    for at in random.integers(0, len(data), changes):
        data[at] = random.integers(0, 256)
    attempt(bytes(data), tmp_path)


def small(network: Path) -> bytes:
    """The network with a single value behind every weight, so that most of its bytes are structure."""
    model = onnx.load(str(network))
    for weight in model.graph.initializer:
        if len(weight.dims) == 4:
            weight.CopyFrom(numpy_helper.from_array(np.ones([1, 1, 1, 1], np.float32), weight.name))
    return bytes(model.SerializeToString())


@given(st.binary(max_size=200))
def test_noise(tmp_path: Path, data: bytes) -> None:
    attempt(data, tmp_path)


def weight_that_is_shorter_than_it_says(model: Any) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:8]


def weight_with_negative_size(model: Any) -> None:
    model.graph.initializer[0].dims[0] = -8


def weight_of_no_type(model: Any) -> None:
    model.graph.initializer[0].data_type = 0


def weight_in_another_file(model: Any) -> None:
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../../secret"), ("length", "864")):
        weight.external_data.add(key=key, value=value)


def norm_of_another_width(model: Any) -> None:
    name = next(n for n in model.graph.node if n.op_type == "BatchNormalization").input[1]
    weight = next(i for i in model.graph.initializer if i.name == name)
    weight.CopyFrom(numpy_helper.from_array(np.ones(5, np.float32), name))


def norm_without_weights(model: Any) -> None:
    del next(n for n in model.graph.node if n.op_type == "BatchNormalization").input[2:]


def conv_without_inputs(model: Any) -> None:
    del next(n for n in model.graph.node if n.op_type == "Conv").input[:]


def unknown_operator(model: Any) -> None:
    model.graph.node[0].op_type = "Convolute"


def a_circle(model: Any) -> None:
    model.graph.node[0].input[0] = model.graph.output[0].name


def no_output(model: Any) -> None:
    del model.graph.output[:]


def no_opset(model: Any) -> None:
    del model.opset_import[:]


def opset_of_the_future(model: Any) -> None:
    model.opset_import[0].version = 999


def input_of_no_rank(model: Any) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def input_of_text(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def resize_without_sizes(model: Any) -> None:
    del model.graph.node[-1].input[1:]


def resize_of_an_unknown_kind(model: Any) -> None:
    for attribute in model.graph.node[-1].attribute:
        attribute.s = b"\xff\xfe"


def two_weights_of_one_name(model: Any) -> None:
    model.graph.initializer.append(model.graph.initializer[0])


@pytest.mark.parametrize(
    "spoil",
    [
        weight_that_is_shorter_than_it_says,
        weight_with_negative_size,
        weight_of_no_type,
        weight_in_another_file,
        norm_of_another_width,
        norm_without_weights,
        conv_without_inputs,
        unknown_operator,
        a_circle,
        no_output,
        no_opset,
        input_of_no_rank,
        input_of_text,
        resize_without_sizes,
        two_weights_of_one_name,
    ],
)
def test_structures_that_cannot_be(network: Path, tmp_path: Path, spoil: Any) -> None:
    (tmp_path / "secret").write_bytes(b"0" * 864)
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    model = onnx.load(str(network))
    spoil(model)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises((FileError, OptionError)):
        onnx_graph.deploy_graph(onnx_graph.load(path), tiny.SPEC)


@pytest.mark.parametrize("spoil", [opset_of_the_future, resize_of_an_unknown_kind])
@pytest.mark.parametrize("target", ["openvino-cpu", "onnxruntime-cpu"])
def test_what_no_runtime_takes(network: Path, tmp_path: Path, spoil: Any, target: str) -> None:
    model = onnx.load(str(network))
    spoil(model)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(EdgesegError) as caught:
        compile_model(
            tmp_path / "model.onnx",
            tmp_path / "out",
            Target.load(target),
            "fp32",
            spec=tiny.SPEC,
            frames=tiny.frames(1),
        )
    assert "the network" in str(caught.value) or "does not run" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "is a folder"),
        (lambda p: p.write_bytes(b""), "is empty"),
        (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"), "cannot be read"),
        (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1"), "is a Git LFS pointer, not the file"),
    ],
)
def test_what_is_no_file_of_onnx(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "model.onnx")
    with pytest.raises(FileError, match=message):
        onnx_graph.load(tmp_path / "model.onnx")
