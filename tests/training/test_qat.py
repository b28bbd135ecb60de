"""Training with INT8 rounding inside: the arithmetic, the checkpoint, and that what it makes runs in INT8."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn
from training_helpers import SPEC, recipe

pytest.importorskip("nncf")

from edgeseg.calibration.frames import CalibrationSet
from edgeseg.compile import compile_model
from edgeseg.data.dataset import Dataset
from edgeseg.errors import FileError, OptionError
from edgeseg.images import Image
from edgeseg.recipe import PTQ, NetConfig, Recipe, Settings
from edgeseg.target import Target
from edgeseg.training import checkpoint, loop, nets, qat, stages
from edgeseg.training.export import export_onnx
from edgeseg.training.loader import SegmentationDataset

onnx = pytest.importorskip("onnx")

Run = Callable[..., Any]
NET = NetConfig(width=0.25)


@pytest.fixture(scope="module")
def frames(root: Path) -> list[Tensor]:
    dataset = SegmentationDataset(Dataset.open(root, "train"), SPEC)
    return [dataset[i][0][None] for i in range(8)]


@pytest.fixture(scope="module")
def student(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that has learned a little, so that its batch norms are not those of a fresh net."""
    return stages.train_student(rounds(), root, tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def trained(root: Path, student: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """By `symmetric`: the checkpoint of edgeseg qat."""
    checkpoints = {}
    for symmetric in (False, True):
        folder = tmp_path_factory.mktemp("qat")
        checkpoints[symmetric] = stages.qat_student(rounds(symmetric), student, student, root, folder)
    return checkpoints


def rounds(symmetric: bool = False) -> Recipe:
    return recipe(
        student={"width": 0.25, "epochs": 4, "batch": 4, "lr": 0.01},
        qat={"epochs": 2, "lr": 1e-3, "symmetric": symmetric},
        quantize={"frames": 8},
    )


def shots(root: Path) -> list[Image]:
    dataset = Dataset.open(root, "test")
    return [dataset[i][0] for i in range(len(dataset))]


def compiled(model: Path, out: Path, target: str, root: Path, precision: str = "int8", **more: Any) -> Any:
    return compile_model(model, out, Target.load(target), precision, spec=SPEC, frames=shots(root), **more)


# The arithmetic


@pytest.mark.parametrize(("channels", "low", "zero"), [(1, 0, 17), (1, -128, 0), (4, -128, 0)])
def test_fake_quantization_equals_torch_s_own(channels: int, low: int, zero: int) -> None:
    quantize = qat.FakeQuantize(channels, low, zero)
    scale = torch.tensor([0.02, 0.1, 0.005, 1.0][:channels])
    quantize.log_scale.data = scale.log()
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    zeros = torch.full((channels,), zero, dtype=torch.int32)
    per_channel = torch.fake_quantize_per_channel_affine(
        x, scale.expand(4).contiguous(), zeros.expand(4).contiguous(), 0, low, low + 255
    )
    torch.testing.assert_close(quantize(x), per_channel, atol=1e-6, rtol=1e-6)
    assert not torch.equal(quantize(x), x)


def test_its_gradients_are_those_of_the_paper() -> None:
    """LSQ: 1 for x inside and 0 outside; for the scale round(x/s) - x/s inside, the end of the grid outside."""
    scale, zero = 0.1, 3
    quantize = qat.FakeQuantize(1, 0, zero)
    quantize.log_scale.data = torch.tensor([scale]).log()
    x = torch.tensor([0.12, 1.0, 100.0, -5.0, -0.21], requires_grad=True)
    quantize(x).sum().backward()
    assert x.grad is not None and quantize.log_scale.grad is not None
    assert x.grad.tolist() == [1, 1, 0, 0, 1]
    v = x.detach().numpy() / scale
    expected = np.where(v > 255 - zero, 255 - zero, np.where(v < -zero, -zero, np.round(v) - v)).sum()
    share = (len(v) * 255 / 2) ** -0.5
    assert float(quantize.log_scale.grad) == pytest.approx(share * scale * expected, rel=1e-4)


def test_prepared_is_nearly_the_float_net(student: Path, frames: list[Tensor]) -> None:
    model, *_ = checkpoint.load(student)
    prepared = qat.prepare(model, frames)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in prepared.modules())
    quantizers = [name for name, m in prepared.named_modules() if isinstance(m, qat.FakeQuantize)]
    convs = [m for m in prepared.modules() if isinstance(m, nn.Conv2d)]
    assert sum("pre_hooks" in name for name in quantizers) == len(convs), "every layer's weights are rounded"
    with torch.no_grad():
        expected, found = model(frames[0]), prepared.eval()(frames[0])
    assert 0 < float((expected - found).abs().max()) < 0.1 * float(expected.abs().max())
    logits: list[Tensor] = []
    nets.head(prepared)[-1].register_forward_hook(lambda module, inputs, output: logits.append(output))
    with torch.no_grad():
        prepared(frames[0])
    assert len(logits[0].unique()) > 300, "the logits themselves are not rounded to 8 bits"


def test_symmetric_has_no_zero_points(student: Path, frames: list[Tensor]) -> None:
    prepared = qat.prepare(checkpoint.load(student)[0], frames, symmetric=True)
    grids = {(m.low, m.zero) for m in prepared.modules() if isinstance(m, qat.FakeQuantize)}
    assert grids == {(-128, 0)}


# Training


def test_the_stage(trained: dict[bool, Path], root: Path, student: Path) -> None:
    report = json.loads(trained[False].with_suffix(".json").read_text())
    before = json.loads(student.with_suffix(".json").read_text())
    assert report["stage"] == "qat" and len(report["history"]) == 2
    assert report["val_miou"] > before["val_miou"] - 0.1
    start = qat.prepare(checkpoint.load(student)[0], [torch.zeros(1, 3, SPEC.height, SPEC.width)])
    end = checkpoint.load(trained[False])[0]
    moved = [k for k, v in end.state_dict().items() if not torch.equal(v, start.state_dict()[k])]
    assert any("log_scale" in key for key in moved) and any(key.endswith("0.weight") for key in moved)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_that_was_stopped_ends_where_it_would_have(
    root: Path, student: Path, frames: list[Tensor], tmp_path: Path, ema: float
) -> None:
    sets = [SegmentationDataset(Dataset.open(root, split), SPEC) for split in ("train", "val")]
    settings = Settings(epochs=3, batch=4, lr=1e-3, ema=ema)

    def run(folder: str, *hooks: Callable[[nn.Module, Any], None]) -> nn.Module:
        model = qat.prepare(checkpoint.load(student)[0], frames)
        for hook in hooks:
            model.register_forward_pre_hook(hook)
        loop.fit(model, *sets, settings, tmp_path / folder, net=NET)
        return model

    whole = run("whole")
    steps = iter(range(100))

    def interrupt(module: nn.Module, inputs: Any) -> None:
        if module.training and next(steps) == 3:  # in the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("parts", interrupt)
    assert checkpoint.read(tmp_path / "parts" / "last.pt")["epoch"] == 1
    again = run("parts")
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values()))
    best, *_ = checkpoint.load(tmp_path / "parts" / "best.pt")
    assert any(isinstance(m, qat.FakeQuantize) for m in best.modules())


@pytest.mark.parametrize(
    ("net", "blocks"),
    [
        (NET, 0),
        (NetConfig("unet", "tu-mobilenetv3_small_050"), 0),
        (NetConfig("lite", "tu-repghostnet_050"), 24),
        pytest.param(NetConfig("fpn", "tu-mobileone_s0"), 43, marks=pytest.mark.slow),
        pytest.param(NetConfig("unet", "tu-repvgg_a0"), 22, marks=pytest.mark.slow),
    ],
    ids=lambda value: value.encoder if isinstance(value, NetConfig) else None,
)
def test_the_checkpoint_is_restored_exactly(net: NetConfig, blocks: int, tmp_path: Path) -> None:
    """The second has batch norms with activations inside, gates, and layers of one channel a group; the others have
    blocks whose branches are merged before they round."""
    torch.manual_seed(0)
    model = nets.build(net, 3)
    image = torch.randn(2, 3, SPEC.height, SPEC.width)
    with torch.no_grad():
        model(image)  # in training mode: its batch norms learn statistics
    prepared = qat.prepare(model.eval(), [image[:1], image[1:]])
    assert len(prepared.merged) == blocks  # type: ignore[arg-type]
    path = checkpoint.save(tmp_path / "q.pt", prepared, net, SPEC)
    again, *_ = checkpoint.load(path)
    with torch.no_grad():
        assert torch.equal(again(image), prepared.eval()(image))
    exported = Counter(node.op_type for node in onnx.load(export_onnx(path, tmp_path / "q.onnx")).graph.node)
    convs = [m for m in prepared.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))]
    assert exported["Conv"] + exported["ConvTranspose"] == len(convs)
    assert exported["QuantizeLinear"] >= len(convs)


# The bundle


@pytest.mark.parametrize("target", ["openvino-cpu", "onnxruntime-cpu", "jetson-orin"])
def test_the_bundle_is_int8_and_agrees_with_torch(
    trained: dict[bool, Path], root: Path, tmp_path: Path, target: str
) -> None:
    symmetric = target == "jetson-orin"
    onnx = export_onnx(trained[symmetric], tmp_path / "qat.onnx")
    bundle = compiled(onnx, tmp_path / "out", target, root)
    manifest = bundle.manifest
    assert manifest.parity.agreement > 0.98
    assert (manifest.precision, manifest.calibration, manifest.ptq) == ("int8", None, None)
    assert any("came quantized" in note for note in manifest.graph.notes)
    assert any("folded into the first convolution" in note for note in manifest.graph.notes)
    model, _, spec, _ = checkpoint.load(trained[symmetric])
    from edgeseg.runtime import open_segmenter

    with open_segmenter(bundle.path, backend=manifest.proved_by) as segmenter:
        for frame in shots(root):
            image = (frame[..., ::-1] / 255.0 - spec.mean) / spec.std
            with torch.no_grad():
                expected = (
                    model(torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))).argmax(1)[0].numpy()
                )
            assert (segmenter(frame).classmap == expected).mean() > 0.97


def test_every_convolution_runs_in_int8(trained: dict[bool, Path], root: Path, tmp_path: Path) -> None:
    onnx = export_onnx(trained[False], tmp_path / "qat.onnx")
    bundle = compiled(onnx, tmp_path / "out", "openvino-cpu", root)
    convs = sum(isinstance(m, nn.Conv2d) for m in checkpoint.load(trained[False])[0].modules())
    assert set(tiny.executed(bundle.path / "model.xml")) <= {"u8", "i8"}
    assert tiny.executed(bundle.path / "model.xml").total() == convs


def test_weights_are_stored_in_a_byte(trained: dict[bool, Path], root: Path, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    bundle = compiled(export_onnx(trained[False], tmp_path / "qat.onnx"), tmp_path / "out", "onnxruntime-cpu", root)
    stored = [numpy_helper.to_array(i) for i in onnx.load(str(bundle.path / "model.onnx")).graph.initializer]
    assert {w.dtype.name for w in stored if w.ndim == 4 and w.size > 3} == {"int8"}


# What is refused


@pytest.mark.parametrize(
    ("target", "precision", "more", "message"),
    [
        ("openvino-cpu", "fp32", {}, r"is quantized already and has no fp32.\nUse --precision int8"),
        ("openvino-cpu", "int8", {"calibration": True}, r"takes no calibration frames.\nLeave out --calibration"),
        ("openvino-cpu", "int8", {"excluded": ("x",)}, "quantized already: no layer of it can be excluded"),
        ("openvino-cpu", "int8", {"ptq": PTQ("mse")}, "quantized already: its ranges and biases are what they are"),
        (
            "tflite-cpu",
            "int8",
            {},
            r"quantized already, which AI Edge Quantizer .TFLite. does not read.\nGive it",
        ),
        (
            "jetson-orin",
            "int8",
            {},
            r"zero points, which TensorRT does not have.\nGive the float model",
        ),
    ],
)
def test_what_cannot_be_made_of_it(
    trained: dict[bool, Path], root: Path, tmp_path: Path, target: str, precision: str, more: Any, message: str
) -> None:
    if "calibration" in more:
        more = {"calibration": CalibrationSet.choose(root, 8)}
    onnx = export_onnx(trained[False], tmp_path / "qat.onnx")
    with pytest.raises(OptionError, match=message):
        compiled(onnx, tmp_path / "out", target, root, precision, **more)
    assert not (tmp_path / "out").exists()


def test_a_recipe_without_epochs(root: Path, student: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"no epochs of quantization-aware training.\nAdd to it: \[qat\] with epochs"):
        stages.qat_student(recipe(), student, student, root, tmp_path)


def test_what_was_trained_for_int8_is_no_student(root: Path, trained: dict[bool, Path], tmp_path: Path) -> None:
    for stage in (stages.qat_student, stages.prune_student):
        with pytest.raises(OptionError, match=r"qat\.pt was trained for INT8 .*\nPass the checkpoint it was"):
            stage(rounds(), trained[False], trained[False], root, tmp_path)


@pytest.mark.parametrize(
    "quantizers",
    [
        "{",
        "{}",
        '{"compression_state": [{"module_path": "os", "module_cls_name": "system", "module_config": {}}]}',
        '{"compression_state": [{"module_path": "nncf.torch.quantization.layers", "module_cls_name": '
        '"SymmetricQuantizer", "module_config": {}, "hook_names_in_model": ["pre_hooks.conv2d/0__1.0"]}]}',
    ],
)
def test_hostile_quantizers(trained: dict[bool, Path], tmp_path: Path, quantizers: str) -> None:
    data = checkpoint.read(trained[False])
    checkpoint.write(tmp_path / "bad.pt", {**data, "quantizers": quantizers})
    with pytest.raises(FileError, match="does not fit its own net: its quantizers cannot be read"):
        checkpoint.load(tmp_path / "bad.pt")


@pytest.mark.parametrize("merged", [["nowhere"], [7], None, 3])
def test_hostile_names_of_merged_blocks(trained: dict[bool, Path], tmp_path: Path, merged: object) -> None:
    data = checkpoint.read(trained[False])
    checkpoint.write(tmp_path / "bad.pt", {**data, "merged": merged})
    with pytest.raises(FileError, match="does not fit its own net"):
        checkpoint.load(tmp_path / "bad.pt")


def test_the_verb(edgeseg: Run, root: Path, student: Path, tmp_path: Path) -> None:
    text = f"""
name = "tiny"
data = {{ root = "{root}", size = [64, 96] }}
student = {{ width = 0.25, batch = 4 }}
quantize = {{ frames = 8 }}
qat = {{ epochs = 1 }}
"""
    (tmp_path / "r.toml").write_text(text)
    ran = edgeseg("qat", tmp_path / "r.toml", "--student", student, "--teacher", student, "-o", tmp_path / "o")
    assert ran.code == 0, ran.err
    assert "qat.pt: val mIoU" in ran.out
    ran = edgeseg("compile", tmp_path / "o" / "qat.pt", "-p", "int8", "-o", tmp_path / "bundle")
    assert ran.code == 0, ran.err
    ran = edgeseg("verify", tmp_path / "bundle")
    assert ran.code == 0, ran.err
