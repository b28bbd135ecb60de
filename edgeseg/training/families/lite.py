"""lite: a light FPN decoder (Lin et al. 2017) with the global average as context, as in LR-ASPP (Howard et al. 2019).

For INT8 on small devices: no hard-swish, no sigmoid gates, no depthwise layers. With a timm encoder (best one without
swish and gates, like EfficientNet-Lite) pretrained weights can be used.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.training.blocks import Conv, GlobalContext, build_encoder, round_to_8, upsample_2x, upsample_bilinear

ENCODERS = True
FUSE = 64


class Lite(nn.Module):
    """Predicts at stride 4. `width` scales the channels of the decoder, and of the encoder unless it is timm's."""

    def __init__(self, classes: int, width: float, encoder: str):
        super().__init__()
        fuse = max(16, round_to_8(FUSE * width))
        self.encoder = build_encoder(encoder, width)
        channels = self.encoder.channels
        deep = 2 * fuse if encoder else channels[-1]
        self.bottleneck = Conv(channels[-1], deep, 1) if deep != channels[-1] else nn.Identity()
        self.context = GlobalContext(deep)
        self.lateral = nn.ModuleList(Conv(c, fuse, 1, relu=False) for c in (*channels[1:3], deep))
        self.middle = Conv(fuse, fuse)
        self.narrow = Conv(fuse, fuse // 2, 1, relu=False)
        self.detail = Conv(channels[0], fuse // 2, 1, relu=False)
        self.last = Conv(fuse // 2, fuse // 2)
        self.classifier = nn.Conv2d(fuse // 2, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        quarter, eighth, sixteenth, last = self.encoder(image)
        x = self.lateral[2](self.context(self.bottleneck(last)))
        x = F.relu(upsample_2x(x) + self.lateral[1](sixteenth))
        x = F.relu(upsample_2x(x) + self.lateral[0](eighth))
        x = F.relu(upsample_2x(self.narrow(self.middle(x))) + self.detail(quarter))
        return upsample_bilinear(self.classifier(self.last(x)), 4)


build = Lite
