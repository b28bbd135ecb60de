"""mask2former: a Swin backbone, a deformable pixel decoder and a decoder of queries with masked attention (Cheng et al.
2022), of transformers."""

from __future__ import annotations

from torch import nn

from edgeseg.training import hugging_face_nets
from edgeseg.training.blocks import round_to_8
from edgeseg.training.families import _swin

ENCODERS = False
SIZES = _swin.SIZES


def build(classes: int, width: float, encoder: str) -> nn.Module:
    """Predicts at stride 4. `encoder`: the size of the Swin; `width` scales all channels."""
    transformers = hugging_face_nets.library("The family mask2former")
    inner = 8 * round_to_8(32 * width)  # 8 heads
    config = transformers.Mask2FormerConfig(
        backbone_config=_swin.swin(transformers, encoder, width),
        hidden_dim=inner,
        feature_size=inner,
        mask_feature_size=inner,
        encoder_feedforward_dim=4 * inner,
        dim_feedforward=8 * inner,
        num_labels=classes,
    )
    return hugging_face_nets.build(config)
