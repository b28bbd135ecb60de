"""Exports agree with torch, carry their Spec, and the ONNX ends in a single resize."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_helpers import HEIGHT, SPEC, WIDTH

from edgeseg.bundle import Bundle
from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.recipe import NetConfig
from edgeseg.spec import Spec
from edgeseg.training import checkpoint, export, nets, onnx_export, pruning
from edgeseg.training.complexity import macs_params

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

Run = Callable[..., Any]
NETS = [NetConfig("lite", width=0.25), NetConfig("deeplabv3plus", "tu-tf_efficientnet_lite0")]


@pytest.fixture(params=NETS, ids=lambda n: n.arch)
def ckpt(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = nets.build(request.param, 3)
    with torch.no_grad():
        model(torch.randn(4, 3, HEIGHT, WIDTH))  # batch norms with statistics
    return checkpoint.save(tmp_path / "m.pt", model, request.param, SPEC)


def test_onnx_and_torch_agree(ckpt: Path, tmp_path: Path) -> None:
    path = export.export_onnx(ckpt, tmp_path / "out" / "m.onnx")
    model, *_ = checkpoint.load(ckpt)
    image = torch.randn(1, 3, HEIGHT, WIDTH)
    with torch.inference_mode():
        expected = model(image).numpy()
    got = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["logits"], {"image": image.numpy()})[0]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_names_shapes_spec_and_last_resize(ckpt: Path, tmp_path: Path) -> None:
    model = onnx.load(export.export_onnx(ckpt, tmp_path / "m.onnx"))
    graph = model.graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)}
    assert shapes == {"image": [1, 3, HEIGHT, WIDTH], "logits": [1, 3, HEIGHT, WIDTH]}
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    (stored,) = (p.value for p in model.metadata_props if p.key == "edgeseg.spec")
    assert Spec.from_dict(json.loads(stored)) == SPEC
    last = graph.node[-1]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in last.attribute}
    assert last.op_type == "Resize" and attributes["mode"] == b"linear"
    assert attributes["coordinate_transformation_mode"] == b"half_pixel"
    assert "BatchNormalization" not in {n.op_type for n in graph.node}


def test_another_size(ckpt: Path, tmp_path: Path, edgeseg: Run) -> None:
    """The same weights for another input."""
    image = torch.randn(1, 3, HEIGHT + 64, WIDTH + 32)
    with torch.inference_mode():
        expected = checkpoint.load(ckpt)[0](image).numpy()
    for kind in ("onnx", "torchscript"):
        ran = edgeseg("export", ckpt, "-o", tmp_path / kind, "-f", kind, "--size", f"{WIDTH + 32}x{HEIGHT + 64}")
        assert ran.code == 0, ran.err
    session = ort.InferenceSession(tmp_path / "onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["logits"], {"image": image.numpy()})[0], expected, atol=1e-4)
    with torch.inference_mode():
        np.testing.assert_allclose(torch.jit.load(tmp_path / "torchscript")(image).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "message"), [("100x96", "Input size 100x96.\nExpected multiples of 32"), ("big", "'big' is not a size")]
)
def test_a_size_that_no_net_takes(ckpt: Path, tmp_path: Path, edgeseg: Run, size: str, message: str) -> None:
    ran = edgeseg("export", ckpt, "-o", tmp_path / "m.onnx", "--size", size)
    assert ran.code == 2 and message in ran.err
    assert not (tmp_path / "m.onnx").exists()


def test_a_checkpoint_is_compiled_for_another_size(ckpt: Path, tmp_path: Path, edgeseg: Run) -> None:
    ran = edgeseg("compile", ckpt, "-p", "fp32", "--size", f"{WIDTH + 32}x{HEIGHT}", "-o", tmp_path / "bundle")
    assert ran.code == 0, ran.err
    spec = Bundle.load(tmp_path / "bundle").spec
    assert (spec.height, spec.width) == (HEIGHT, WIDTH + 32)


def test_training_branches_are_merged_in_the_export(tmp_path: Path) -> None:
    net = NetConfig("fpn", "tu-repvgg_a0")
    model = nets.build(net, 3).eval()
    path = checkpoint.save(tmp_path / "m.pt", model, net, SPEC)
    merged = onnx.load(export.export_onnx(path, tmp_path / "m.onnx"))
    plain = onnx.load_from_string(onnx_export.to_onnx(model, SPEC))
    convs = [sum(n.op_type == "Conv" for n in m.graph.node) for m in (plain, merged)]
    assert convs[0] - convs[1] == 22, "every RepVGG block had a 1x1 branch"


def test_a_pruned_net_exports(tmp_path: Path) -> None:
    pruned = pruning.prune(nets.build(NETS[0], 3), (HEIGHT, WIDTH), 0.7, round_to=2)
    path = checkpoint.save(tmp_path / "m.pt", pruned, NETS[0], SPEC)
    assert export.export_onnx(path, tmp_path / "m.onnx").stat().st_size > 1000


def test_a_difference_stops_the_export(ckpt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "parity", lambda *args: 0.39)
    with pytest.raises(EdgesegError, match=r"differs from torch by 0\.39"):
        export.export_onnx(ckpt, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        export.export_onnx(tmp_path / "no.pt", tmp_path / "m.onnx")


def test_macs_and_parameters_by_hand() -> None:
    conv = torch.nn.Conv2d(3, 8, 3, padding=1, bias=True)
    assert macs_params(conv, (4, 6)) == (3 * 8 * 9 * 24, 3 * 8 * 9 + 8)


# Other formats: each in its own runtime


def expected_of(ckpt: Path) -> tuple[torch.Tensor, np.ndarray]:
    """An image, and torch's logits of it."""
    model, *_ = checkpoint.load(ckpt)
    image = torch.randn(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        return image, model(image).numpy()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


def test_pth_is_a_plain_state_dict(ckpt: Path, tmp_path: Path) -> None:
    path = export.export(ckpt, tmp_path / "m.pth", "pth")
    stored = torch.load(path, weights_only=True)
    assert Spec.from_dict(json.loads(stored["edgeseg.spec"])) == SPEC
    fresh = nets.build(NetConfig(**json.loads(stored["edgeseg.net"])), 3)
    fresh.load_state_dict(stored["state_dict"])
    image, expected = expected_of(ckpt)
    with torch.inference_mode():
        close(fresh.eval()(image).numpy(), expected)


def test_torchscript_needs_no_code_of_edgeseg(ckpt: Path, tmp_path: Path) -> None:
    path = export.export(ckpt, tmp_path / "m.ts", "torchscript")
    extra = {"edgeseg.spec": ""}
    module = torch.jit.load(str(path), _extra_files=extra)
    assert Spec.from_dict(json.loads(extra["edgeseg.spec"])) == SPEC
    image, expected = expected_of(ckpt)
    with torch.inference_mode():
        close(module(image).numpy(), expected)


def test_openvino_ir(ckpt: Path, tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino")
    path = export.export(ckpt, tmp_path / "m.xml", "openvino")
    model = ov.Core().read_model(path)
    assert Spec.from_dict(json.loads(model.get_rt_info(["edgeseg.spec"]).astype(str))) == SPEC
    image, expected = expected_of(ckpt)
    close(ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image.numpy())[0], expected)
    assert sorted(p.name for p in tmp_path.glob("m.*")) == ["m.bin", "m.pt", "m.xml"]


def test_tflite(ckpt: Path, tmp_path: Path) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    from edgeseg.tflite.flatbuffer import schema

    data = export.export(ckpt, tmp_path / "m.tflite", "tflite").read_bytes()
    model = schema().ModelT.InitFromPackedBuf(data, 0)
    (entry,) = [m for m in model.metadata if m.name == b"edgeseg.spec"]
    assert Spec.from_dict(json.loads(model.buffers[entry.buffer].data.tobytes())) == SPEC
    runner = litert.Interpreter(model_content=data).get_signature_runner()
    image, expected = expected_of(ckpt)
    found = runner(image=np.ascontiguousarray(image.numpy().transpose(0, 2, 3, 1)))["logits"]
    close(found.transpose(0, 3, 1, 2), expected)


def test_formats_and_names_that_do_not_exist(ckpt: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"Unknown format 'openvno'.\nDid you mean 'openvino'"):
        export.export(ckpt, tmp_path / "m", "openvno")
    pytest.importorskip("openvino")
    with pytest.raises(OptionError, match=r"Expected a name that ends in \.xml"):
        export.export(ckpt, tmp_path / "m.bin", "openvino")


def test_the_verb_writes_a_format(ckpt: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from edgeseg.cli.train import app

    ran = CliRunner().invoke(app, ["export", str(ckpt), "--format", "pth", "-o", str(tmp_path / "out.pth")])
    assert ran.exit_code == 0 and "state_dict" in torch.load(tmp_path / "out.pth", weights_only=True)
