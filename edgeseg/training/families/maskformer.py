"""maskformer: a Swin backbone, an FPN and DETR's decoder of queries (Cheng et al. 2021), of transformers."""

from __future__ import annotations

from torch import nn

from edgeseg.training import hugging_face_nets
from edgeseg.training.blocks import round_to_8
from edgeseg.training.families import _swin

ENCODERS = False
SIZES = _swin.SIZES


def build(classes: int, width: float, encoder: str) -> nn.Module:
    """Predicts at stride 4. `encoder`: the size of the Swin; `width` scales all channels."""
    transformers = hugging_face_nets.library("The family maskformer")
    inner = 8 * round_to_8(32 * width)  # 8 heads
    config = transformers.MaskFormerConfig(
        backbone_config=_swin.swin(transformers, encoder, width),
        decoder_config=transformers.DetrConfig(
            d_model=inner, encoder_ffn_dim=8 * inner, decoder_ffn_dim=8 * inner, dropout=0.0
        ),
        fpn_feature_size=inner,
        mask_feature_size=inner,
        num_labels=classes,
    )
    return hugging_face_nets.build(config)
