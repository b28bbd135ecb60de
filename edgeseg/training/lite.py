"""The family `lite`: plain 3x3 convolutions, batch norm and ReLU, for INT8 on small devices.

Nothing in it loses accuracy or speed when quantised on OpenVINO, TensorRT or TFLite: no hard-swish, no sigmoid gates,
no depthwise layers; nearest-neighbour upsampling inside and one bilinear resize at the end.
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


class Lite(nn.Module):
    """Image [N, 3, H, W] (H, W multiples of 32) -> logits [N, classes, H, W], predicted at stride 4."""

    def __init__(self, classes: int, width: float = 1.0):
        super().__init__()
        channels = [max(8, round(c * width / 8) * 8) for c in CHANNELS]
        fuse = max(16, round(FUSE * width / 8) * 8)
        stages, before = [], 3
        for now, blocks in zip(channels, BLOCKS):
            stages.append(nn.Sequential(Conv(before, now, stride=2), *(Residual(now) for _ in range(blocks))))
            before = now
        self.stages = nn.ModuleList(stages)
        self.context = Context(channels[-1])
        self.lateral = nn.ModuleList(Conv(c, fuse, 1, relu=False) for c in channels[2:])
        self.middle = Conv(fuse, fuse)
        self.narrow = Conv(fuse, fuse // 2, 1, relu=False)
        self.detail = Conv(channels[1], fuse // 2, 1, relu=False)
        self.last = Conv(fuse // 2, fuse // 2)
        self.classifier = nn.Conv2d(fuse // 2, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        maps = [image]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        maps[-1] = self.context(maps[-1])
        x = self.lateral[2](maps[5])
        x = F.relu(double(x) + self.lateral[1](maps[4]))
        x = F.relu(double(x) + self.lateral[0](maps[3]))
        x = F.relu(double(self.narrow(self.middle(x))) + self.detail(maps[2]))
        logits = self.classifier(self.last(x))
        return F.interpolate(logits, scale_factor=4.0, mode="bilinear", align_corners=False)


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
