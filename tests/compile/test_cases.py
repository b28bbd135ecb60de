"""Foreign networks compiled to bundles, against ONNX Runtime on the untouched file and plain numpy (foreign_cases)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import foreign_cases
import onnx
from foreign_cases import FILES, OWN, Case

from edgeseg import onnx_graph
from edgeseg.calibration.frames import CalibrationSet
from edgeseg.cli.models import find_spec
from edgeseg.compile import compile_model, spec_of
from edgeseg.errors import FileError, OptionError
from edgeseg.images import write_image
from edgeseg.runtime import open_segmenter
from edgeseg.target import Target

GRAPHS = Path(__file__).parents[3] / "shared" / "cases" / "graphs"
TARGETS = ("openvino-cpu", "onnxruntime-cpu")
NORMALIZATION: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "color": "RGB"}


def agreement_of(case: Case, path: Path, out: Path, target: str) -> float:
    """The share of pixels on which the case's fp32 bundle agrees with the file."""
    _, height, width, _, _ = foreign_cases.input_size(path)
    frames = foreign_cases.frames(height, width)
    spec, _ = spec_of(path, {**NORMALIZATION, **case.flags})
    compile_model(path, out, Target.load(target), "fp32", spec=spec, frames=frames)
    truth = foreign_cases.expected(path, case, frames)
    with open_segmenter(out) as segmenter:
        return float(np.mean([segmenter(frame).classmap == one for frame, one in zip(frames, truth)]))


def test_every_case_has_something_to_tell_apart(tmp_path: Path) -> None:
    """An agreement proves nothing where the class map is of one class."""
    for case in OWN:
        assert case.build is not None
        onnx.save(case.build(), str(tmp_path / "case.onnx"))
        _, height, width, _, _ = foreign_cases.input_size(tmp_path / "case.onnx")
        maps = foreign_cases.expected(tmp_path / "case.onnx", case, foreign_cases.frames(height, width))
        assert np.bincount(np.ravel(maps)).max() < 0.97 * np.size(maps), case.name


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", FILES, ids=lambda case: case.name)
def test_a_file_of_the_shared_cases(case: Case, target: str, tmp_path: Path) -> None:
    path = GRAPHS / f"{case.name}.onnx"
    if not path.is_file():
        pytest.skip("the folder shared/cases is not beside this checkout")
    assert agreement_of(case, path, tmp_path / "out", target) >= case.floor


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", OWN, ids=lambda case: case.name)
def test_an_instance_of_our_own(case: Case, target: str, tmp_path: Path) -> None:
    assert case.build is not None
    onnx.save(case.build(), str(tmp_path / "case.onnx"))
    assert agreement_of(case, tmp_path / "case.onnx", tmp_path / "out", target) >= case.floor


def test_the_color_of_other_channel_counts(tmp_path: Path) -> None:
    gray = saved(foreign_cases.channels_input(1, 1, False)(), tmp_path / "gray.onnx")
    spec, assumed = spec_of(gray, {"mean": (0.5,) * 3, "std": (0.5,) * 3})
    assert spec.color == "GRAY" and not [line for line in assumed if line.startswith("color")]
    four = saved(foreign_cases.channels_input(1, 4, False)(), tmp_path / "four.onnx")
    for path, flags, message in (
        (four, {}, r"takes 4 channels, and the color order is RGB.\nExpected RGBA or BGRA: .* Alpha is then opaque"),
        (gray, {"color": "RGB"}, "takes 1 channels, and the color order is RGB.\nExpected GRAY"),
    ):
        spec, _ = spec_of(path, {**NORMALIZATION, "color": "RGB", **flags})
        with pytest.raises(OptionError, match=message):
            compile_model(
                path, tmp_path / "out", Target.load("onnxruntime-cpu"), "fp32", spec=spec,
                frames=foreign_cases.frames(64, 96)[:1],
            )  # fmt: skip


INT8 = ("gray-1", "rgba-1", "op11", "fp16_io", "opset11-1", "opset12-2", "fp16-1", "fp16-2")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", [case for case in FILES + OWN if case.name in INT8], ids=lambda case: case.name)
def test_old_opsets_and_half_precision_in_int8(case: Case, target: str, tmp_path: Path) -> None:
    """Per-channel DequantizeLinear needs opset 13, and the quantizers want float32."""
    path = GRAPHS / f"{case.name}.onnx"
    if case.build is not None:
        path = tmp_path / "case.onnx"
        onnx.save(case.build(), str(path))
    elif not path.is_file():
        pytest.skip("the folder shared/cases is not beside this checkout")
    _, height, width, _, _ = foreign_cases.input_size(path)
    frames = foreign_cases.frames(height, width, 12)
    (tmp_path / "frames").mkdir()
    for i, frame in enumerate(frames[4:]):
        write_image(tmp_path / "frames" / f"{i}.png", frame)
    chosen = CalibrationSet.choose(tmp_path / "frames", 8)
    spec, _ = spec_of(path, {**NORMALIZATION, **case.flags})
    compile_model(
        path,
        tmp_path / "out",
        Target.load(target),
        "int8",
        spec=spec,
        frames=frames[:4],
        calibration=chosen,
        allow_loss=True,
    )
    truth = foreign_cases.expected(path, case, frames[:4])
    with open_segmenter(tmp_path / "out") as segmenter:
        assert np.mean([segmenter(frame).classmap == one for frame, one in zip(frames, truth)]) >= 0.8  # random weights


def saved(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, str(path))
    return path


def test_outputs_of_one_size_are_listed_and_one_is_to_be_chosen(tmp_path: Path) -> None:
    b = foreign_cases.Builder(1)
    x = b.resize(b.body(5))
    path = saved(b.model(x, b.add("Softmax", x, axis=1)), tmp_path / "two.onnx")
    with pytest.raises(OptionError, match=r"The model has 2 outputs: t\d \[1, 5, 64, 96\], .*\n.*--output t"):
        spec_of(path, NORMALIZATION)
    assert spec_of(path, NORMALIZATION, output=x)[0].classes


def test_the_largest_output_is_taken_and_named(tmp_path: Path) -> None:
    path = saved(foreign_cases.heads(1, small_first=True)(), tmp_path / "aux.onnx")
    _, assumed = spec_of(path, NORMALIZATION)
    assert any(line.startswith("output main (the largest of ") for line in assumed)


def test_a_batch_that_is_built_in_is_named(tmp_path: Path) -> None:
    b = foreign_cases.Builder(1)
    x = b.add("Reshape", b.body(5), b.const([4, 5, 16, 24], np.int64))
    path = saved(b.model(b.resize(x), shape=(4, 3, 64, 96)), tmp_path / "batch.onnx")
    with pytest.raises(OptionError, match=r"batch"):
        spec_of(path, NORMALIZATION)


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    model = foreign_cases.modern(17, 1)()
    model.graph.node[2].output[0] = model.graph.node[0].output[0]
    with pytest.raises(OptionError, match=r"make the tensor 't0'"):
        spec_of(saved(model, tmp_path / "twice.onnx"), NORMALIZATION)


def test_ids_of_unknown_origin_need_their_classes(tmp_path: Path) -> None:
    b = foreign_cases.Builder(1)
    x = b.add("ArgMin", b.resize(b.body(5)), axis=1)
    path = saved(b.model(x, out_kind=onnx.TensorProto.INT64), tmp_path / "least.onnx")
    with pytest.raises(OptionError, match="class ids, of how many classes"):
        spec_of(path, NORMALIZATION)
    case = Case("least", foreign_cases.ids, flags={"classes": tuple("abcde")})
    assert agreement_of(case, path, tmp_path / "out", "openvino-cpu") >= 0.9999


def test_hundreds_of_inputs_are_not_all_listed(tmp_path: Path) -> None:
    b = foreign_cases.Builder(1)
    more = [onnx.helper.make_tensor_value_info(f"w{i}", onnx.TensorProto.FLOAT, [3]) for i in range(300)]
    path = saved(b.model(b.resize(b.body(5)), inputs=more), tmp_path / "many.onnx")
    with pytest.raises(OptionError, match=r"and 297 more") as caught:
        spec_of(path, NORMALIZATION)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"\x1c\0\0\0TFL3" + bytes(64), "model.tflite", "is a TFLite model, not an ONNX model.\nConvert it: .*tf2onnx"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "model.h5", "is a Keras model"),
        (b"\x0a\x10graph", "frozen.pb", "is a TensorFlow graph"),
        ((64).to_bytes(8, "little") + b'{"a":{}}', "model.safetensors", "weights .safetensors."),
        (b'<?xml version="1.0"?>\n<net name="x">', "model.xml", "is an OpenVINO IR"),
        (b"ftrt" + bytes(64), "model.engine", "is a TensorRT engine"),
        (b"ptrt" + bytes(64), "engine.onnx", "is a TensorRT engine"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "model.onnx",
            "is a Git LFS pointer.*\nFetch it: git lfs pull",
        ),
        (b"PK\x03\x04" + bytes(64), "model.pt2", "is a zip archive"),
        (b"<!DOCTYPE html><html>", "model.onnx", "is a web page"),
    ],
)
def test_a_file_of_another_format_is_called_by_its_name(data: bytes, name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FileError, match=message):
        spec_of(tmp_path / name, {})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("saved_model.pb", "is a TensorFlow SavedModel"),
        ("config.json", "is a Hugging Face model"),
        ("model.xml", "is an OpenVINO IR"),
        ("bundle.json", "is a bundle that was compiled already"),
        ("net.onnx", "is a folder.\nGive a file: net.onnx"),
    ],
)
def test_a_folder_is_called_by_its_format(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FileError, match=message):
        spec_of(tmp_path, {})


def described(task: str, path: Path) -> Path:
    b = foreign_cases.Builder(1)
    model = b.model(b.resize(b.body(3)), shape=(1, 3, "h", "w"))
    values = {"names": "{0: 'road', 1: 'person', 2: 'car'}", "task": task, "stride": "32", "imgsz": "[64, 96]"}
    onnx.helper.set_model_props(model, values)
    return saved(model, path)


def test_ultralytics_metadata_is_read(tmp_path: Path) -> None:
    spec, assumed = spec_of(described("semantic", tmp_path / "ultralytics.onnx"), {})
    assert (spec.classes, spec.height, spec.width) == (("road", "person", "car"), 64, 96)
    assert (spec.color, spec.mean, spec.std, spec.fit) == ("RGB", (0, 0, 0), (1, 1, 1), "letterbox")
    assert assumed == []
    with pytest.raises(OptionError, match="Ultralytics network for the task 'segment'"):
        spec_of(described("segment", tmp_path / "instances.onnx"), {})


def hugging_face(folder: Path, **settings: object) -> Path:
    """As optimum exports a semantic model: the graph, and two JSON files beside it."""
    b = foreign_cases.Builder(1)
    labels = {"10": "k", **{str(i): f"label {i}" for i in range(10)}}
    (folder / "config.json").write_text(json.dumps({"model_type": "segformer", "id2label": labels}))
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return saved(b.model(b.resize(b.body(11)), shape=(1, 3, "h", "w")), folder / "model.onnx")


IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def test_a_hugging_face_folder_says_its_preprocessing(tmp_path: Path) -> None:
    path = hugging_face(tmp_path, size={"height": 64, "width": 96}, do_normalize=True, **IMAGENET)
    spec, assumed = spec_of(path, {})
    assert spec.classes[:3] == ("label 0", "label 1", "label 2") and spec.classes[10] == "k"
    assert (spec.height, spec.width, spec.mean) == (64, 96, (0.485, 0.456, 0.406)) and assumed == []
    (tmp_path / "onnx").mkdir()
    deeper = path.rename(tmp_path / "onnx" / "model.onnx")
    assert spec_of(deeper, {})[0] == spec


@pytest.mark.parametrize(
    ("settings", "mean", "std"),
    [
        ({"do_normalize": False, **IMAGENET}, (0, 0, 0), (1, 1, 1)),
        ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3}, (0.5,) * 3, (0.5,) * 3),
        ({"do_rescale": False, "do_normalize": False}, (0, 0, 0), (1 / 255,) * 3),  # takes 0..255
    ],
)
def test_hugging_faces_switches_of_normalization(
    settings: dict[str, object], mean: tuple[float, ...], std: tuple[float, ...], tmp_path: Path
) -> None:
    spec, _ = spec_of(hugging_face(tmp_path, size=64, **settings), {})
    assert spec.mean == pytest.approx(mean) and spec.std == pytest.approx(std)


def test_json_of_hugging_face_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = hugging_face(tmp_path, size=64)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(FileError, match=r"preprocessor_config.json cannot be read"):
        spec_of(path, {})


def test_a_guess_of_the_preprocessing_is_a_loud_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved(foreign_cases.modern(17, 1)(), tmp_path / "model.onnx")
    find_spec(path, {"color": "RGB"})
    assert "PREPROCESSING IS A GUESS: the file does not say its mean, std." in caplog.text
    caplog.clear()
    find_spec(path, NORMALIZATION)
    assert "GUESS" not in caplog.text


def test_the_parent_s_digest_covers_its_external_data(tmp_path: Path) -> None:
    digests = []
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        model = foreign_cases.modern(17, seed)()
        path = tmp_path / str(seed) / "model.onnx"
        onnx.save(model, str(path), save_as_external_data=True, location="model.data", size_threshold=0)
        digests.append(onnx_graph.digest(path))
    same = [(tmp_path / seed / "model.onnx").read_bytes() for seed in ("1", "2")]
    assert same[0] == same[1] and digests[0] != digests[1]


def test_more_classes_than_a_byte_can_tell_apart_are_refused(tmp_path: Path) -> None:
    b = foreign_cases.Builder(1)
    path = saved(b.model(b.resize(b.body(300)), shape=(1, 3, 64, 96)), tmp_path / "model.onnx")
    with pytest.raises(OptionError, match=r"300 classes\.\nExpected 2 to 255 class names: a class map has one byte"):
        spec_of(path, {})
