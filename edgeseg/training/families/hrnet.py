"""hrnet: HRNetV2 (Wang et al. 2020), every branch upsampled to stride 4 and concatenated, on timm's encoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeseg.training.blocks import Conv, TimmEncoder, round_to_8, upsample_bilinear

ENCODERS = True
SMALLEST = "hrnet_w18_small"


class HRNet(nn.Module):
    """Predicts at stride 4. `width` scales the head; the encoder's size is in its name, hrnet_w18 to hrnet_w64."""

    def __init__(self, classes: int, width: float, encoder: str):
        super().__init__()
        name = encoder or SMALLEST
        # The branches themselves, not the wider maps that timm derives from them for its classifier.
        branches = {"feature_location": ""} if name.removeprefix("tu-").startswith("hrnet") else {}
        self.encoder = TimmEncoder(name, **branches)
        inner = round_to_8(sum(self.encoder.channels) * width)
        self.join = Conv(sum(self.encoder.channels), inner, 1)
        self.classifier = nn.Conv2d(inner, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        maps = [upsample_bilinear(x, 2**i) if i else x for i, x in enumerate(self.encoder(image))]
        return upsample_bilinear(self.classifier(self.join(torch.cat(maps, 1))), 4)


build = HRNet
