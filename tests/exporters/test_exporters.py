"""Bundles for other servers: each file is read by that server's own schema or rules, and gives the golden frames."""

from __future__ import annotations

import configparser
import dataclasses
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from edgeseg import exporters, mask
from edgeseg.bundle import MANIFEST, Bundle
from edgeseg.errors import BundleError, EdgesegError, FileError, OptionError
from edgeseg.exporters import triton

BundleOf = Callable[[str, str], Path]
KINDS = {"openvino-cpu": "openvino", "onnxruntime-cpu": "onnxruntime", "jetson-orin": "tensorrt_plan"}
# Keys of [property] in the documentation of Gst-nvinfer that a configuration of ours may have.
NVINFER_KEYS = """gpu-id gie-unique-id process-mode network-type num-detected-classes output-blob-names
segmentation-output-order segmentation-threshold labelfile-path model-engine-file onnx-file network-mode batch-size
infer-dims model-color-format net-scale-factor offsets maintain-aspect-ratio scaling-filter""".split()


def agreements(bundle: Bundle, class_map: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    """For each golden frame, the share of pixels that a class map has right; frames come at the model's size."""
    size = (bundle.spec.width, bundle.spec.height)
    return [
        mask.agreement(class_map(cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)), truth)
        for frame, truth in bundle.golden()
    ]


def onnx_session(model: bytes | Path) -> Any:
    import onnxruntime

    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])


def resealed(source: Path, copy: Path, **changes: Any) -> Path:
    """A copy of a bundle whose manifest says something else; digests are right."""
    shutil.copytree(source, copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(json.dumps({**manifest, **changes}))
    return copy


def with_spec(source: Path, copy: Path, **changes: Any) -> Path:
    spec = dataclasses.replace(Bundle.load(source).spec, **changes)
    return resealed(source, copy, spec=spec.to_dict())


# Triton


def triton_config(text: str) -> Any:
    """config.pbtxt by Triton's own message; unknown keys and wrong types are errors."""
    text_format = pytest.importorskip("google.protobuf.text_format")
    model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs edgeseg[dev]")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize(("target", "precision"), [(t, p) for t in KINDS for p in ("fp32", "int8")])
def test_triton(target: str, precision: str, bundle_of: BundleOf, tmp_path: Path) -> None:
    path = bundle_of(target, precision)
    bundle = Bundle.load(path)
    command = exporters.export(path, "triton", tmp_path / "repository", "street")
    model = tmp_path / "repository" / "street"
    config = triton_config((model / "config.pbtxt").read_text())
    assert config.name == "street"
    assert (config.backend or config.platform) == KINDS[target]
    assert config.max_batch_size == 0
    tensors = {t.name: (t.data_type, list(t.dims)) for t in (*config.input, *config.output)}
    uint8, fp32 = config.input[0].DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_name, 11
    assert tensors == {
        "frame": (uint8["TYPE_UINT8"].number, [1, tiny.HEIGHT, tiny.WIDTH, 3]),
        "logits": (fp32, [1, 8, tiny.HEIGHT // 4, tiny.WIDTH // 4]),
    }
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert tuple(json.loads(parameters["edgeseg.classes"])) == bundle.spec.classes
    assert parameters["edgeseg.upsample"] == "half_pixel"
    assert parameters["edgeseg.bundle"] == bundle.digest
    assert (model / "labels.txt").read_text().split() == list(bundle.spec.classes)
    for file in ("model.xml", "model.bin", "model.onnx"):
        if file in bundle.files and target != "jetson-orin":
            assert (model / "1" / file).read_bytes() == bundle.read(file)
    assert "tritonserver --model-repository" in command
    assert str(tmp_path / "repository") in command


def test_a_triton_client_needs_nothing_but_the_config_to_make_the_class_map(
    bundle_of: BundleOf, tmp_path: Path
) -> None:
    path = bundle_of("onnxruntime-cpu", "int8")
    exporters.export(path, "triton", tmp_path / "out", "street")
    config = triton_config((tmp_path / "out/street/config.pbtxt").read_text())
    session = onnx_session(tmp_path / "out/street/1/model.onnx")
    width, height = map(int, config.parameters["edgeseg.size"].string_value.split("x"))

    def class_map(frame: np.ndarray) -> np.ndarray:
        logits = session.run([config.output[0].name], {config.input[0].name: frame[None]})[0]
        return mask.class_map(logits[0], height, width, config.parameters["edgeseg.upsample"].string_value)

    assert min(agreements(Bundle.load(path), class_map)) == 1


@given(text=st.text(st.characters(exclude_categories=("Cc", "Cs"))))
def test_any_class_name_survives_the_text_format(text: str) -> None:
    config = triton_config(f'parameters {{ key: "k" value {{ string_value: {triton._text(text)} }} }}')
    assert config.parameters["k"].string_value == text


def test_triton_config_typos_are_noticed() -> None:
    with pytest.raises(Exception, match="max_batch_siz"):
        triton_config("max_batch_siz: 0")


# OpenVINO Model Server


def test_ovms(bundle_of: BundleOf, tmp_path: Path) -> None:
    import openvino as ov

    path = bundle_of("openvino-cpu", "int8")
    bundle = Bundle.load(path)
    exporters.export(path, "ovms", tmp_path / "out")
    document = json.loads((tmp_path / "out/config.json").read_text())
    assert set(document) == {"model_config_list"}
    (entry,) = document["model_config_list"]
    config = entry["config"]
    assert set(config) <= {"name", "base_path", "target_device", "plugin_config"}
    assert all(isinstance(value, (str, bool, int, float)) for value in config["plugin_config"].values())
    folder = tmp_path / "out" / config["base_path"]
    assert [p.name for p in folder.iterdir() if p.is_dir()] == ["1"]
    assert (folder / "labels.txt").read_text().split() == list(bundle.spec.classes)
    about = json.loads((tmp_path / "out/edgeseg.json").read_text())
    assert (about["digest"], about["upsample"]) == (bundle.digest, "half_pixel")
    compiled = ov.Core().compile_model(folder / "1/model.xml", config["target_device"], config["plugin_config"])

    def class_map(frame: np.ndarray) -> np.ndarray:
        return mask.class_map(compiled({"frame": frame[None]})["logits"][0], tiny.HEIGHT, tiny.WIDTH, about["upsample"])

    assert min(agreements(bundle, class_map)) > 0.999


# DeepStream


def nvinfer(folder: Path) -> tuple[dict[str, str], list[str]]:
    """[property] of a configuration, and its labels."""
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.read_string((folder / "config_infer.txt").read_text())
    assert parser.sections() == ["property"]
    keys = dict(parser["property"])
    return keys, (folder / keys["labelfile-path"]).read_text().splitlines()


def as_nvinfer(folder: Path, keys: dict[str, str]) -> Callable[[np.ndarray], np.ndarray]:
    """What nvinfer's documentation says it computes before and after the network."""
    session = onnx_session(folder / "model.onnx")
    (entry,), (out,) = session.get_inputs(), session.get_outputs()
    channels, height, width = map(int, keys["infer-dims"].split(";"))
    assert (entry.type, entry.shape) == ("tensor(float)", [1, channels, height, width])
    assert (out.name, keys["segmentation-output-order"], keys["network-type"]) == (keys["output-blob-names"], "0", "2")
    scale, offsets = float(keys["net-scale-factor"]), [float(v) for v in keys["offsets"].split(";")]
    threshold = float(keys["segmentation-threshold"])
    assert threshold >= 0, "nvinfer refuses others"

    def class_map(frame: np.ndarray) -> np.ndarray:
        pixels = frame if keys["model-color-format"] == "1" else frame[..., ::-1]
        image = (scale * (pixels.astype(np.float32) - np.float32(offsets))).transpose(2, 0, 1)[None]
        scores = session.run(None, {entry.name: np.ascontiguousarray(image, np.float32)})[0][0]
        assert scores.shape == (int(keys["num-detected-classes"]), height, width)
        best = np.where(scores > max(threshold, -1), scores, -np.inf)
        return np.where(best.max(0) == -np.inf, 255, best.argmax(0)).astype(np.uint8)

    return class_map


@pytest.mark.parametrize(("target", "precision"), [("jetson-orin", "fp32"), ("jetson-orin", "fp16"),
                                                   ("jetson-orin", "int8"), ("jetson-nano", "fp16")])  # fmt: skip
def test_deepstream(target: str, precision: str, bundle_of: BundleOf, tmp_path: Path) -> None:
    path = bundle_of(target, precision)
    bundle = Bundle.load(path)
    exporters.export(path, "deepstream", tmp_path / "out")
    keys, labels = nvinfer(tmp_path / "out")
    assert set(keys) <= set(NVINFER_KEYS)
    assert tuple(labels) == bundle.spec.classes
    assert keys["network-mode"] == {"fp32": "0", "int8": "1", "fp16": "2"}[precision]
    assert ("onnx-file" in keys) == (precision != "int8"), "nvinfer would build INT8 as FP16"
    assert min(agreements(bundle, as_nvinfer(tmp_path / "out", keys))) > 0.999


def test_deepstream_of_a_threshold_net(tmp_path: Path) -> None:
    """Two channels, of which the first is the border, become probabilities with the same winner."""
    import onnx

    from edgeseg.compile import compile_model
    from edgeseg.precision import Precision
    from edgeseg.target import Target

    net = tiny.Net(3)
    onnx.save(net.model(net.resize(net.head("image", 1)), spec=tiny.PAIR), str(tmp_path / "pair.onnx"))
    bundle = compile_model(
        tmp_path / "pair.onnx", tmp_path / "pair", Target.load("jetson-orin"), Precision.parse("fp32"),
        spec=tiny.PAIR, frames=tiny.frames(3, seed=4),
    )  # fmt: skip
    exporters.export(bundle.path, "deepstream", tmp_path / "out")
    keys, labels = nvinfer(tmp_path / "out")
    assert labels == ["nothing", "thing"]
    assert min(agreements(bundle, as_nvinfer(tmp_path / "out", keys))) > 0.999


@pytest.mark.parametrize("upsample", mask.UPSAMPLES)
def test_probabilities_have_the_winner_of_the_class_map(upsample: str) -> None:
    pytest.importorskip("onnx")
    from edgeseg.onnx_graph.probabilities import probabilities

    height, width = (16, 24) if upsample == "none" else (64, 96)
    net = tiny.Net(5)
    model = net.model(net.add("Identity", "image", name="logits"), shape=(1, 3, 16, 24))
    probabilities(model, height, width, upsample)
    logits = np.random.default_rng(7).normal(-5, 2, (3, 16, 24)).astype(np.float32)
    scores = onnx_session(model.SerializeToString()).run(None, {"image": logits[None]})[0][0]
    assert scores.min() >= 0, "nvinfer starts at -1 and leaves out what is below its threshold"
    np.testing.assert_allclose(scores.sum(0), 1, rtol=1e-5)
    assert mask.agreement(scores.argmax(0).astype(np.uint8), mask.class_map(logits, height, width, upsample)) > 0.999


# The script that builds an engine

TRTEXEC = """#!/bin/sh
case "$*" in --help) echo "{help}"; exit 0 ;; esac
echo "$@" > args.txt
for word in "$@"; do case $word in --saveEngine=*) echo engine > "${{word#--saveEngine=}}" ;; esac; done
"""


@pytest.mark.parametrize(
    ("precision", "server", "known", "expected", "absent"),
    [
        ("int8", "triton", "--int8 --fp16 --memPoolSize", "--int8 --fp16 --memPoolSize=workspace:4096", ""),
        ("fp16", "deepstream", "--int8 --fp16 --memPoolSize", "--skipInference --fp16", "--int8"),
        ("fp16", "deepstream", "--memPoolSize", "--skipInference --memPoolSize", "--fp16"),  # TensorRT 11
        ("fp32", "triton", "--noTF32 --fp16", "--noTF32", "--fp16"),
    ],
)
def test_the_engine_is_built_with_the_settings_of_the_plan(
    precision: str, server: str, known: str, expected: str, absent: str, bundle_of: BundleOf, tmp_path: Path
) -> None:
    exporters.export(bundle_of("jetson-orin", precision), server, tmp_path / "out", "street")
    folder = tmp_path / "out" / ("street" if server == "triton" else "")
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "trtexec").write_text(TRTEXEC.format(help=known))
    (bin / "trtexec").chmod(0o755)
    subprocess.run([folder / "build.sh"], env={"PATH": f"{bin}:/usr/bin:/bin"}, check=True, cwd="/")
    words = (folder / "args.txt").read_text()
    assert expected in words
    assert not absent or absent not in words
    assert (folder / ("1/model.plan" if server == "triton" else "model.engine")).read_text() == "engine\n"
    if shellcheck := shutil.which("shellcheck"):
        subprocess.run([shellcheck, folder / "build.sh"], check=True)


def test_without_trtexec_the_script_says_where_it_comes_from(bundle_of: BundleOf, tmp_path: Path) -> None:
    exporters.export(bundle_of("jetson-orin", "fp16"), "deepstream", tmp_path / "out")
    ran = subprocess.run(
        [tmp_path / "out/build.sh"], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "trtexec was not found" in ran.stderr


def test_a_plan_cannot_put_words_into_the_script(bundle_of: BundleOf, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle_of("jetson-orin", "fp16"), copy)
    plan = json.loads((copy / "plan.json").read_text())
    (copy / "plan.json").write_text(json.dumps({**plan, "flags": ["FP16; touch /tmp/owned"]}))
    tiny.reseal(copy)
    for server in ("triton", "deepstream"):
        with pytest.raises(BundleError, match=r"unknown flag 'FP16; touch.*\nKnown: FP16, INT8"):
            exporters.export(copy, server, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Refused, with the reason


@pytest.mark.parametrize(
    ("server", "target", "message"),
    [
        ("deepstream", "openvino-cpu", "DeepStream runs TensorRT, and .* is for openvino"),
        ("deepstream", "onnxruntime-cpu", "DeepStream runs TensorRT, and .* is for onnxruntime"),
        ("deepstream", "tflite-cpu", "DeepStream runs TensorRT, and .* is for tflite"),
        ("triton", "tflite-cpu", "Triton has no backend for .*, which is for tflite"),
        ("ovms", "tflite-cpu", "it was verified with tflite, and the server runs OpenVINO"),
        ("ovms", "onnxruntime-cpu", "it was verified with onnxruntime, and the server runs OpenVINO"),
        ("ovms", "jetson-orin", "it was verified with tensorrt, and the server runs OpenVINO"),
    ],
)
def test_a_bundle_that_a_server_cannot_run(
    server: str, target: str, message: str, bundle_of: BundleOf, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message) as error:
        exporters.export(bundle_of(target, "fp32"), server, tmp_path / "out")
    assert "ompile" in error.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fit": "letterbox"}, "nvinfer cannot fit frames as .* wants them \\(letterbox\\)"),
        ({"interpolation": "cubic"}, "nvinfer has no interpolation cubic"),
        ({"classes": ("a;b", *"cdefghi")}, "Class name 'a;b': nvinfer reads ';' as an end"),
    ],
)
def test_what_nvinfer_cannot_do(changes: dict[str, Any], message: str, bundle_of: BundleOf, tmp_path: Path) -> None:
    changed = with_spec(bundle_of("jetson-orin", "fp32"), tmp_path / "copy", **changes)
    with pytest.raises(OptionError, match=message):
        exporters.export(changed, "deepstream", tmp_path / "out")


@pytest.mark.parametrize("server", ["triton", "deepstream"])
def test_ranges_that_only_the_device_finds(server: str, bundle_of: BundleOf, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle_of("jetson-orin", "int8"), copy)
    plan = json.loads((copy / "plan.json").read_text())
    (copy / "plan.json").write_text(json.dumps({**plan, "int8": "entropy"}))
    tiny.reseal(copy)
    with pytest.raises(OptionError, match=r"ranges are found on the device.*\nCompile it without --entropy"):
        exporters.export(copy, server, tmp_path / "out")


@pytest.mark.parametrize("server", exporters.names())
def test_digests_are_checked_first(server: str, bundle_of: BundleOf, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle_of("openvino-cpu", "fp32"), copy)
    data = bytearray((copy / "model.bin").read_bytes())
    data[100] ^= 1
    (copy / "model.bin").write_bytes(data)
    with pytest.raises(BundleError, match=r"model\.bin differs from its digest"):
        exporters.export(copy, server, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../../evil", "a/b", "", ".hidden", "-x", "a b", "x" * 101, "a\nb"])
def test_a_name_that_no_model_can_have(name: str, bundle: Path, tmp_path: Path) -> None:
    copy = resealed(bundle, tmp_path / "copy", name=name)
    for given_name in (name, ""):
        with pytest.raises(OptionError, match="Model name"):
            exporters.export(copy, "triton", tmp_path / "out", given_name)
    exporters.export(copy, "triton", tmp_path / "out", "good")


def test_another_folder_is_not_overwritten_and_an_export_is(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/data.txt").write_text("mine")
    with pytest.raises(FileError, match="exists and holds something else"):
        exporters.export(bundle, "ovms", tmp_path / "mine")
    exporters.export(bundle, "ovms", tmp_path / "out", "first")
    exporters.export(bundle, "ovms", tmp_path / "out", "second")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["config.json", "edgeseg.json", "second"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("{bundle}", "--format", "tritn"), "Unknown format 'tritn'.\nDid you mean 'triton'?"),
        (("{bundle}",), "is a folder.\nA bundle is exported for a server: --format deepstream, ovms, triton."),
        (("{bundle}", "--format", "triton", "--size", "96x64"), "--size with a bundle."),
        (("{net}", "--format", "triton"), "is not a folder."),
        (("{net}", "--name", "x"), "--name with a checkpoint."),
    ],
)
def test_wrong_words(words: tuple[str, ...], message: str, bundle: Path, tmp_path: Path, edgeseg: Any) -> None:
    (tmp_path / "net.pt").write_bytes(b"PK")
    places = {"bundle": bundle, "net": tmp_path / "net.pt"}
    ran = edgeseg("export", *(word.format(**places) for word in words), "--out", tmp_path / "out")
    assert ran.code == 2
    assert message in ran.err
    assert not (tmp_path / "out").exists()


def test_from_the_command_line(bundle: Path, tmp_path: Path, edgeseg: Any) -> None:
    ran = edgeseg("export", bundle, "--format", "ovms", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert f"ovms --config_path {tmp_path / 'out' / 'config.json'}" in ran.err


def test_an_unknown_exporter() -> None:
    with pytest.raises(EdgesegError, match="Unknown format 'torchserve'"):
        exporters.get("torchserve")
