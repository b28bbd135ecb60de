"""Swin backbones (Liu et al. 2021) for the families of transformers that have one, by size."""

from __future__ import annotations

from typing import Any

SIZES = {
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}  # channels of the first stage, blocks and heads of each


def swin(transformers: Any, size: str, width: float) -> Any:
    """The config of the backbone; `width` scales its channels."""
    channels, blocks, heads = SIZES[size or "tiny"]
    per_head = max(8, round(channels / heads[0] * width / 8) * 8)
    return transformers.SwinConfig(
        embed_dim=heads[0] * per_head,
        depths=list(blocks),
        num_heads=list(heads),
        drop_path_rate=0.1,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
