"""Twenty-one networks of other libraries as ONNX files: random weights (seed 0), settled so that class maps are varied.

A network of random weights gives one class everywhere. So its batch norms see frames first, and each channel of its
last convolutions is shifted and scaled to mean 0 and deviation 1 on them. Its class maps are still noisier than trained
ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import edgeseg.training  # noqa: F401  # makes torchvision importable beside a CPU build of torch

CLASSES = 11
HEIGHT, WIDTH = 160, 224
Tail = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Foreign:
    """`reading`: how its output becomes a class map: argmax (axis 1), last (axis 3), logit, probability or ids.
    `opset`: what the exporter writes; `convert`: the opset it is then converted to. `half`: float16 inside, too."""

    name: str
    library: str
    make: Callable[[], nn.Module]
    what: str = "logits"
    reading: str = "argmax"
    tail: Tail | None = None
    opset: int = 17
    dynamo: bool = False
    convert: int = 0
    half: bool = False
    dynamic: bool = False

    @property
    def classes(self) -> int:
        return 2 if self.reading in ("logit", "probability") else CLASSES


class Logits(nn.Module):
    """A network whose outputs have names: its logits, and with `aux` what else it gives in training."""

    def __init__(self, net: nn.Module, key: str, aux: str = ""):
        super().__init__()
        self.net, self.key, self.aux = net, key, aux

    def forward(self, x: Tensor) -> Any:
        found = self.net(x)
        return (found[self.aux], found[self.key]) if self.aux else found[self.key]


class WithHead(nn.Module):
    """A backbone of timm with the plainest of heads."""

    def __init__(self, name: str):
        super().__init__()
        import timm

        body: Any = timm.create_model(name, features_only=True, out_indices=(2,))
        self.body, self.last = body, nn.Conv2d(body.feature_info.channels()[-1], CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        body: Any = self.body
        logits = self.last(body(x)[-1])
        return nn.functional.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)


class Tailed(nn.Module):
    def __init__(self, net: nn.Module, tail: Tail):
        super().__init__()
        self.net, self.tail = net, tail

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.net(x))


def smp(arch: str, encoder: str, classes: int = CLASSES, **more: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import segmentation_models_pytorch as library

        return library.create_model(arch, encoder, encoder_weights=None, classes=classes, **more)  # type: ignore[no-any-return]

    return make


def torchvision(name: str, aux: str = "") -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from torchvision.models import segmentation

        more = {"aux_loss": True} if aux else {}
        net = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=CLASSES, **more)
        return Logits(net, "out", aux)

    return make


def hugging_face(kind: str, **settings: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import transformers

        config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **settings)
        return Logits(getattr(transformers, f"{kind}ForSemanticSegmentation")(config), "logits")

    return make


def backbone(name: str) -> Callable[[], nn.Module]:
    return lambda: WithHead(name)


NETWORKS = (
    Foreign("Unet ResNet-18", "smp", smp("unet", "resnet18")),
    Foreign("Unet MobileNetV2", "smp", smp("unet", "mobilenet_v2", 1), "one logit", "logit", opset=13),
    Foreign("FPN EfficientNet-Lite0", "smp", smp("fpn", "tu-tf_efficientnet_lite0"), "softmax",
            tail=lambda y: y.softmax(1), opset=11),
    Foreign("DeepLabV3+ MobileNetV2", "smp", smp("deeplabv3plus", "mobilenet_v2"), "class ids", "ids",
            tail=lambda y: y.argmax(1), opset=14),
    Foreign("Unet++ ResNet-18", "smp", smp("unetplusplus", "resnet18"), "channels last", "last",
            tail=lambda y: y.permute(0, 2, 3, 1), opset=12),
    Foreign("Linknet ResNet-18", "smp", smp("linknet", "resnet18", 1), "sigmoid", "probability",
            tail=torch.sigmoid, opset=9),
    Foreign("SegFormer MiT-B0", "smp", smp("segformer", "mit_b0"), opset=16),
    Foreign("FPN MiT-B0", "smp", smp("fpn", "mit_b0"), opset=15),
    Foreign("PAN MobileNetV2", "smp", smp("pan", "mobilenet_v2"), "float16 inside and out", half=True),
    Foreign("MAnet ResNet-18", "smp", smp("manet", "resnet18"), opset=17, convert=24),
    Foreign("LR-ASPP MobileNetV3", "torchvision", torchvision("lraspp_mobilenet_v3_large"), "dynamic size",
            dynamic=True, opset=16),
    Foreign("DeepLabV3 MobileNetV3", "torchvision", torchvision("deeplabv3_mobilenet_v3_large", "aux"),
            "auxiliary output first"),
    Foreign("FCN ResNet-50", "torchvision", torchvision("fcn_resnet50"), "dynamic size, softmax",
            tail=lambda y: y.softmax(1), dynamic=True, opset=10),
    Foreign("EfficientNet-Lite0, plain head", "timm", backbone("tf_efficientnet_lite0"), opset=17, convert=26),
    Foreign("ConvNeXt-Atto, plain head", "timm", backbone("convnext_atto")),
    Foreign("SegFormer-B0", "transformers", hugging_face("Segformer"), "logits at a quarter"),
    Foreign("MobileViT", "transformers", hugging_face("MobileViT", image_size=WIDTH), "logits at a sixteenth"),
    Foreign("Unet ResNet-18", "smp", smp("unet", "resnet18"), "argmax, channels kept", "ids",
            tail=lambda y: y.argmax(1, keepdim=True), opset=18, dynamo=True),
    Foreign("LR-ASPP MobileNetV3", "torchvision", torchvision("lraspp_mobilenet_v3_large"), opset=20, dynamo=True),
    Foreign("SegFormer-B0", "transformers", hugging_face("Segformer"), "logits at a quarter", opset=21, dynamo=True),
    Foreign("ConvNeXt-Atto, plain head", "timm", backbone("convnext_atto"), "softmax",
            tail=lambda y: y.softmax(1), opset=23, dynamo=True),
)  # fmt: skip


def write(foreign: Foreign, path: Path, frames: NDArray[np.float32]) -> Path:
    """Make the network and write it as ONNX. `frames`: [N, 3, H, W], normalized, to settle it on."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = foreign.make()
        _settle(net, torch.from_numpy(frames), 1 if foreign.classes == 2 else CLASSES)
        if foreign.tail:
            net = Tailed(net, foreign.tail)
        _export(net.eval(), path, foreign)
    if foreign.convert or foreign.half:
        model = onnx.load(str(path))
        if foreign.convert:
            model = onnx.version_converter.convert_version(model, foreign.convert)
        if foreign.half:
            from onnxruntime.transformers import float16

            model = float16.convert_float_to_float16(model)
        onnx.save(model, str(path))
    return path


def _export(net: nn.Module, path: Path, foreign: Foreign) -> None:
    image = torch.zeros(1, 3, HEIGHT, WIDTH)
    if foreign.dynamo:
        torch.onnx.export(
            net, (image,), str(path), dynamo=True, opset_version=foreign.opset, external_data=False, verbose=False
        )
        return
    axes = {"image": {0: "n", 2: "h", 3: "w"}} if foreign.dynamic else None
    torch.onnx.export(
        net, (image,), str(path), dynamo=False, opset_version=foreign.opset, input_names=["image"], dynamic_axes=axes
    )


def _settle(net: nn.Module, frames: Tensor, channels: int) -> None:
    """Statistics of batch norms, then mean 0 and deviation 1 of every channel of the last convolutions."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        net.train()(frames)
        last = [m for m in net.eval().modules() if isinstance(m, nn.Conv2d) and m.out_channels == channels]
        seen: dict[nn.Conv2d, Tensor] = {}
        hooks = [m.register_forward_hook(lambda m, _, out: seen.__setitem__(m, out)) for m in last]
        net(frames)
        for hook in hooks:
            hook.remove()
        for module, out in seen.items():
            deviation, mean = torch.std_mean(out, (0, 2, 3))
            if module.bias is None:
                module.bias = nn.Parameter(torch.zeros(channels))
            module.weight /= deviation[:, None, None, None]
            module.bias.copy_((module.bias - mean) / deviation)
