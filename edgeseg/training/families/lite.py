"""The family `lite`: plain 3x3 convolutions, batch norm and ReLU, for INT8 on small devices.

Nothing in it loses accuracy or speed when quantised on OpenVINO, TensorRT or TFLite: no hard-swish, no sigmoid gates,
no depthwise layers of its own; nearest-neighbour upsampling inside and one bilinear resize at the end. With a timm
encoder (best one without swish and gates, like EfficientNet-Lite) pretrained weights can be used.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = (16, 32, 64, 96, 128)  # at strides 2, 4, 8, 16, 32, times `width`
BLOCKS = (0, 1, 1, 1, 1)
FUSE = 64


class Conv(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True):
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU() if relu else nn.Identity(),
        )


class Residual(nn.Module):
    """relu(x + conv(conv(x))), He et al. 2016."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = Conv(channels, channels)
        self.second = Conv(channels, channels, relu=False)
        norm: Any = self.second[1]
        nn.init.zeros_(norm.weight)  # starts as the identity: trains faster from scratch

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Context(nn.Module):
    """Adds what the whole frame looks like (mean over all positions) to every position."""

    def __init__(self, channels: int):
        super().__init__()
        self.local = Conv(channels, channels)
        self.whole = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.local(x) + self.whole(F.adaptive_avg_pool2d(x, 1)))


class Plain(nn.Module):
    """The encoder of our own: maps at strides 2, 4, 8, 16, 32."""

    def __init__(self, width: float):
        super().__init__()
        self.channels = [max(8, round(c * width / 8) * 8) for c in CHANNELS]
        stages, before = [], 3
        for now, blocks in zip(self.channels, BLOCKS):
            stages.append(nn.Sequential(Conv(before, now, stride=2), *(Residual(now) for _ in range(blocks))))
            before = now
        self.stages = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = [image]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


class Timm(nn.Module):
    """An encoder of timm by its name: maps at strides 2, 4, 8, 16, 32."""

    def __init__(self, name: str):
        super().__init__()
        import timm

        self.model: Any = timm.create_model(name, features_only=True, pretrained=False)
        self.channels: list[int] = self.model.feature_info.channels()

    def forward(self, image: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.model(image)
        return maps


class Lite(nn.Module):
    """Image [N, 3, H, W] (H, W multiples of 32) -> logits [N, classes, H, W], predicted at stride 4.

    `width` scales the channels of the decoder, and of the encoder unless it is timm's.
    """

    def __init__(self, classes: int, width: float = 1.0, encoder: str = ""):
        super().__init__()
        fuse = max(16, round(FUSE * width / 8) * 8)
        self.encoder: Timm | Plain = Timm(encoder.removeprefix("tu-")) if encoder else Plain(width)
        channels = self.encoder.channels
        deep = 2 * fuse if encoder else channels[-1]
        self.bottleneck = Conv(channels[-1], deep, 1) if deep != channels[-1] else nn.Identity()
        self.context = Context(deep)
        self.lateral = nn.ModuleList(Conv(c, fuse, 1, relu=False) for c in (*channels[2:4], deep))
        self.middle = Conv(fuse, fuse)
        self.narrow = Conv(fuse, fuse // 2, 1, relu=False)
        self.detail = Conv(channels[1], fuse // 2, 1, relu=False)
        self.last = Conv(fuse // 2, fuse // 2)
        self.classifier = nn.Conv2d(fuse // 2, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        _, quarter, eighth, sixteenth, last = self.encoder(image)
        x = self.lateral[2](self.context(self.bottleneck(last)))
        x = F.relu(double(x) + self.lateral[1](sixteenth))
        x = F.relu(double(x) + self.lateral[0](eighth))
        x = F.relu(double(self.narrow(self.middle(x))) + self.detail(quarter))
        logits = self.classifier(self.last(x))
        return F.interpolate(logits, scale_factor=4.0, mode="bilinear", align_corners=False)


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
