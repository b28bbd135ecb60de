"""Every family learns, exports and agrees with torch in OpenVINO and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training_helpers import CLASSES, SPEC, scene, write_scenes

from edgeseg.compile import compile_model
from edgeseg.data.dataset import Dataset
from edgeseg.recipe import Machine, NetConfig, Settings
from edgeseg.runtime import open_segmenter
from edgeseg.spec import Spec
from edgeseg.target import Target
from edgeseg.training import checkpoint, export, families, loop, nets, onnx_export, pruning
from edgeseg.training.blocks import GridPool
from edgeseg.training.complexity import macs_params
from edgeseg.training.loader import SegmentationDataset
from edgeseg.training.objectives import losses

OWN = [
    NetConfig("lite", width=0.5),
    NetConfig("fcn", width=0.5),
    NetConfig("liteseg", width=0.5),
    NetConfig("ddrnet", width=0.5),
    NetConfig("hrnet", "tu-hrnet_w18_small", width=0.25),
    NetConfig("eomt", "tiny", width=0.125),
]
# One of each kind of backbone among them. The second number is a learning rate.
ALL = [
    (NetConfig("lite"), 5e-3),
    (NetConfig("lite", "tu-tf_efficientnet_lite0"), 3e-3),
    (NetConfig("liteseg"), 5e-3),
    (NetConfig("ddrnet"), 5e-3),
    (NetConfig("fcn", "tu-resnet50"), 2e-3),
    (NetConfig("hrnet", "tu-hrnet_w18_small"), 3e-3),
    (NetConfig("unet", "tu-mobilenetv3_large_100"), 3e-3),
    (NetConfig("fpn", "tu-mobilenetv4_conv_small"), 3e-3),
    (NetConfig("deeplabv3plus", "tu-resnet50"), 2e-3),
    (NetConfig("pspnet", "tu-efficientnet_lite0"), 3e-3),
    (NetConfig("segformer", "mit_b0"), 1e-3),
    (NetConfig("upernet", "tu-swin_tiny_patch4_window7_224"), 5e-4),
    (NetConfig("eomt", "tiny", width=0.5), 1e-3),
]
SLOW = [NetConfig("mask2former", width=0.125), NetConfig("maskformer", width=0.125)]  # minutes for a few steps
STUDENTS = ("lite", "liteseg", "ddrnet")


def name(net: object) -> str | None:
    return f"{net.arch}-{net.encoder}".rstrip("-") if isinstance(net, NetConfig) else None


def test_a_family_is_a_file() -> None:
    assert set(families.names()) == {
        *("lite", "fcn", "hrnet", "liteseg", "ddrnet", "eomt", "mask2former", "maskformer")
    }
    assert {net.arch for net, _ in ALL} | {net.arch for net in SLOW} >= set(families.names())


@pytest.mark.parametrize("net", [*OWN, *(pytest.param(net, marks=pytest.mark.slow) for net in SLOW)], ids=name)
def test_forward_backward_and_export(net: NetConfig) -> None:
    torch.manual_seed(0)
    model = nets.build(net, 5).train()
    logits = model(torch.randn(2, 3, 64, 96))
    assert logits.shape == (2, 5, 64, 96)
    losses.cross_entropy(logits, torch.randint(0, 5, (2, 64, 96))).backward()
    assert [key for key, p in model.named_parameters() if p.grad is None and p.requires_grad] == []
    spec = Spec(64, 96, tuple("abcde"))
    assert onnx_export.parity(model.eval(), onnx_export.to_onnx(model, spec), spec) < 1e-4


@pytest.mark.parametrize("arch", STUDENTS)
def test_students_have_only_operators_that_every_runtime_quantizes(arch: str) -> None:
    import onnx

    model = nets.build(NetConfig(arch), 8).eval()
    kinds = {type(m).__name__ for m in model.modules() if not list(m.children())}
    assert kinds <= {"Conv2d", "BatchNorm2d", "ReLU", "Identity", "MaxPool2d"}
    graph = onnx.load_from_string(onnx_export.to_onnx(model, SPEC)).graph
    pooling = {"MaxPool", "AveragePool", "GlobalAveragePool"}
    assert {n.op_type for n in graph.node} <= {
        "Conv",
        "Relu",
        "Add",
        "Concat",
        "Resize",
        "Constant",
        "Identity",
    } | pooling
    resizes = [
        {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute} for n in graph.node if n.op_type == "Resize"
    ]
    assert [r["mode"] for r in resizes] == [b"nearest"] * (len(resizes) - 1) + [b"linear"]


@pytest.mark.parametrize("arch", STUDENTS)
def test_students_can_be_pruned_and_loaded_again(arch: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = NetConfig(arch, width=0.5)
    pruned = pruning.prune(nets.build(net, 3).eval(), (64, 96), 0.7, round_to=4)
    loaded, *_ = checkpoint.load(checkpoint.save(tmp_path / "m.pt", pruned, net, SPEC))
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(loaded(image), pruned.eval()(image))


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(12, 18), (4, 7), (11, 15)])
def test_grid_pool_is_adaptive_pooling(bins: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 5, *size)
    torch.testing.assert_close(GridPool(bins)(x), nn.functional.adaptive_avg_pool2d(x, bins))


@pytest.mark.parametrize("arch", ["pspnet", "upernet"])
def test_pyramid_pooling_exports_at_sizes_its_bins_do_not_divide(arch: str) -> None:
    torch.manual_seed(0)
    model = nets.build(NetConfig(arch, "tu-resnet10t"), 3).eval()
    spec = Spec(96, 160, tuple("abc"))
    assert onnx_export.parity(model, onnx_export.to_onnx(model, spec), spec) < 1e-4


def four(root: Path, height: int, width: int) -> SegmentationDataset:
    write_scenes(root, {"train": 4}, height, width)
    spec = Spec(height, width, CLASSES.names, CLASSES.palette, CLASSES.ignore_index)
    return SegmentationDataset(Dataset.open(root, "train"), spec)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(("net", "lr"), ALL, ids=name)
def test_memorizes_four_frames_and_compiles_for_every_runtime(net: NetConfig, lr: float, tmp_path: Path) -> None:
    frames = four(tmp_path, 96, 160)
    spec = frames.spec
    torch.manual_seed(0)
    model = nets.build(net, 3)
    settings = Settings(epochs=80, batch=4, lr=lr, stride=1, warmup=0.1)
    history = loop.fit(model, frames, frames, settings, tmp_path / "run", net=net, machine=Machine(pictures=0))
    assert history[-1].val_accuracy >= 0.95
    path = checkpoint.save(tmp_path / "m.pt", model, net, spec)
    onnx = export.export_onnx(path, tmp_path / "m.onnx")
    pictures = [scene(i, 96, 160)[0] for i in range(1, 5)]
    agreement = {}
    for target in ("openvino-cpu", "onnxruntime-cpu"):
        bundle = compile_model(onnx, tmp_path / target, Target.load(target), "fp32", spec=spec, frames=pictures)
        agreement[target] = bundle.manifest.parity.agreement
        with open_segmenter(bundle.path) as segmenter, torch.inference_mode():
            for i, picture in enumerate(pictures):
                expected = model(frames[i][0][None]).argmax(1)[0].numpy()
                assert (segmenter(picture).classmap == expected).mean() > 0.995
    macs, params = macs_params(model, (spec.height, spec.width))
    print(f"\n| {net.arch} | {net.encoder or '-'} | {params / 1e6:.2f} | {macs / 1e9:.2f} | "
          f"{100 * history[-1].val_accuracy:.2f} | {agreement} |")  # fmt: skip
    assert np.min(list(agreement.values())) > 0.995
