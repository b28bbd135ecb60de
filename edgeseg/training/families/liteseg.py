"""liteseg: a real-time net after PP-LiteSeg (Peng et al. 2022) on the encoder of STDC (Fan et al. 2021).

From the papers: short-term dense blocks, pooling at several scales, and a decoder that narrows towards the output.
Not included: the sigmoid gates of the fusion, replaced by a 3x3 convolution over both maps, and the detail head that
only training uses.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.training.blocks import Conv, PyramidPooling, TimmEncoder, round_to_8, upsample_2x, upsample_bilinear

ENCODERS = True
CHANNELS = (16, 32, 96, 192, 384)  # at strides 2, 4, 8, 16, 32, times `width`
DECODER = (64, 96, 128)  # at strides 8, 16, 32


class DenseBlock(nn.Module):
    """Convolutions in a row, each half as wide as the one before, concatenated; `stride` 2 halves the map."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        half, quarter, eighth = outputs // 2, outputs // 4, outputs // 8
        self.first = Conv(inputs, half, 1)
        self.steps = nn.ModuleList([Conv(half, quarter, stride=stride), Conv(quarter, eighth), Conv(eighth, eighth)])
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        maps = [x if self.stride == 1 else F.avg_pool2d(x, 2)]
        for step in self.steps:
            x = step(x)
            maps.append(x)
        return torch.cat(maps, 1)


class STDC(nn.Module):
    """Feature maps at strides 4, 8, 16, 32."""

    def __init__(self, width: float):
        super().__init__()
        first, *channels = (round_to_8(c * width) for c in CHANNELS)
        stages: list[nn.Module] = [nn.Sequential(Conv(3, first, stride=2), Conv(first, channels[0], stride=2))]
        for inputs, outputs in pairwise(channels):
            stages.append(nn.Sequential(DenseBlock(inputs, outputs, 2), DenseBlock(outputs, outputs)))
        self.stages = nn.ModuleList(stages)
        self.channels = channels

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = [image]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


class LiteSeg(nn.Module):
    """Predicts at stride 8. `width` scales the decoder, and the encoder unless it is timm's."""

    def __init__(self, classes: int, width: float, encoder: str):
        super().__init__()
        self.encoder = TimmEncoder(encoder) if encoder else STDC(width)
        _, eighth, sixteenth, last = self.encoder.channels
        high, middle, low = (round_to_8(c * width) for c in DECODER)
        self.pyramid = PyramidPooling(last, low)
        self.lateral = nn.ModuleList([Conv(sixteenth, low, 1), Conv(eighth, middle, 1)])
        self.fuse = nn.ModuleList([Conv(2 * low, middle), Conv(2 * middle, high)])
        self.classifier = nn.Conv2d(high, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        _, eighth, sixteenth, last = self.encoder(image)
        x = self.pyramid(last)
        for lateral, fuse, detail in zip(self.lateral, self.fuse, (sixteenth, eighth)):
            x = fuse(torch.cat([upsample_2x(x), lateral(detail)], 1))
        return upsample_bilinear(self.classifier(x), 8)


build = LiteSeg
