"""eomt: a plain ViT whose last blocks carry queries, too (EoMT, Kerssies et al. 2025), of transformers."""

from __future__ import annotations

from torch import nn

from edgeseg.training import hugging_face_nets

ENCODERS = False
SIZES = {"tiny": (12, 3), "small": (12, 6), "base": (12, 12), "large": (24, 16)}  # blocks, and heads of 64 channels
HEAD = 64
IMAGE = 512  # that positions are learned for; others are interpolated


def build(classes: int, width: float, encoder: str) -> nn.Module:
    """Predicts at stride 4. `encoder`: the size of the ViT; `width` scales its channels."""
    transformers = hugging_face_nets.library("The family eomt")
    blocks, heads = SIZES[encoder or "tiny"]
    config = transformers.EomtConfig(
        hidden_size=heads * max(8, round(HEAD * width / 8) * 8),
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_blocks=4 if encoder == "large" else 3,
        num_queries=100,
        image_size=IMAGE,
        num_labels=classes,
    )
    net = hugging_face_nets.build(config)
    # Masked attention helps training and is annealed away before its end (section 3.3). Without it from the start, the
    # graph that is trained is the one that is deployed.
    net.get_buffer("model.attn_mask_probs").zero_()
    return net
