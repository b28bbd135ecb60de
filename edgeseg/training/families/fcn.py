"""fcn: FCN-8s, the class scores of strides 32, 16 and 8 added up (Long, Shelhamer, Darrell 2015), on any encoder."""

from __future__ import annotations

from torch import Tensor, nn

from edgeseg.training.blocks import build_encoder, upsample_bilinear

ENCODERS = True


class FCN(nn.Module):
    """Predicts at stride 8. `width` scales the encoder unless it is timm's; the head has no channels to scale."""

    def __init__(self, classes: int, width: float, encoder: str):
        super().__init__()
        self.encoder = build_encoder(encoder, width)
        self.classifier = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in self.encoder.channels[1:])

    def forward(self, image: Tensor) -> Tensor:
        _, eighth, sixteenth, last = self.encoder(image)
        scores = upsample_bilinear(self.classifier[2](last), 2) + self.classifier[1](sixteenth)
        return upsample_bilinear(upsample_bilinear(scores, 2) + self.classifier[0](eighth), 8)


build = FCN
