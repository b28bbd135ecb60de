"""ddrnet: a real-time net of two branches after DDRNet (Hong et al. 2021), which BiSeNet (Yu et al. 2018) began.

A detail branch stays at stride 8, a context branch goes down to 32, and they exchange features twice. As in PIDNet (Xu
et al. 2023) a boundary loss helps: set `boundary` in the recipe. Not included: the auxiliary head that only training
uses.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.training.blocks import Conv, PyramidPooling, Residual, round_to_8, upsample_2x, upsample_bilinear

ENCODERS = False
CHANNELS = 32  # of DDRNet-23-slim


def stage(inputs: int, outputs: int, stride: int, blocks: int = 1) -> nn.Sequential:
    return nn.Sequential(Conv(inputs, outputs, stride=stride), *(Residual(outputs) for _ in range(blocks)))


class Exchange(nn.Module):
    """Detail [N, d, h, w] and context [N, c, h/2^steps, w/2^steps], each with the other added."""

    def __init__(self, detail: int, context: int, steps: int):
        super().__init__()
        self.up = Conv(context, detail, 1, relu=False)
        widths = [detail, *(context // 2**i for i in reversed(range(steps)))]
        pairs = list(pairwise(widths))
        self.down = nn.Sequential(*(Conv(a, b, stride=2, relu=b != context) for a, b in pairs))
        self.steps = steps

    def forward(self, detail: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        up = self.up(context)
        for _ in range(self.steps):
            up = upsample_2x(up)
        return F.relu(detail + up), F.relu(context + self.down(detail))


class DDRNet(nn.Module):
    """Predicts at stride 8."""

    def __init__(self, classes: int, width: float):
        super().__init__()
        c = round_to_8(CHANNELS * width)
        self.stem = nn.Sequential(Conv(3, c, stride=2), stage(c, c, 2), stage(c, 2 * c, 2))
        self.detail = nn.ModuleList([stage(2 * c, 2 * c, 1), stage(2 * c, 2 * c, 1)])
        self.context = nn.ModuleList([stage(2 * c, 4 * c, 2), stage(4 * c, 8 * c, 2)])
        self.exchange = nn.ModuleList([Exchange(2 * c, 4 * c, 1), Exchange(2 * c, 8 * c, 2)])
        self.pyramid = PyramidPooling(8 * c, 4 * c)
        self.widen = Conv(2 * c, 4 * c, 1, relu=False)
        self.last = Conv(4 * c, 2 * c)
        self.classifier = nn.Conv2d(2 * c, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        detail = context = self.stem(image)
        for stay, deepen, exchange in zip(self.detail, self.context, self.exchange):
            detail, context = exchange(stay(detail), deepen(context))
        x = F.relu(self.widen(detail) + upsample_2x(upsample_2x(self.pyramid(context))))
        return upsample_bilinear(self.classifier(self.last(x)), 8)


def build(classes: int, width: float, encoder: str = "") -> nn.Module:
    return DDRNet(classes, width)
