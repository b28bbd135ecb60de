"""Hugging Face folders of tiny networks with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

import edgeseg.training

assert edgeseg.training  # before transformers' models, which import torchvision

NAMES = ["road", "car", "sky", "tree", "person"]
LABELS: dict[str, Any] = {"id2label": dict(enumerate(NAMES)), "label2id": {n: i for i, n in enumerate(NAMES)}}
PROCESSOR = {
    "do_normalize": True, "do_rescale": True, "do_resize": True, "size": {"height": 128, "width": 128},
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
}  # fmt: skip
SWIN: dict[str, Any] = {
    "image_size": 128, "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2], "window_size": 4,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}  # fmt: skip
TINY_VIT: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 128, "patch_size": 16,
}  # fmt: skip


def network(kind: str) -> Any:
    """A tiny network of a family with random weights."""
    import transformers as t

    torch.manual_seed(0)
    if kind == "segformer":
        sizes: dict[str, Any] = {"hidden_sizes": [16, 32, 40, 64], "depths": [1, 1, 1, 1], "decoder_hidden_size": 32}
        return t.SegformerForSemanticSegmentation(t.SegformerConfig(**sizes, **LABELS))
    if kind == "eomt":
        return t.EomtForUniversalSegmentation(t.EomtConfig(**TINY_VIT, num_blocks=1, num_queries=10, **LABELS))
    if kind == "mask2former":
        config = t.Mask2FormerConfig(
            backbone_config=t.SwinConfig(**SWIN), hidden_dim=32, feature_size=32, mask_feature_size=32,
            encoder_layers=1, decoder_layers=2, num_attention_heads=2, encoder_feedforward_dim=32,
            dim_feedforward=32, num_queries=10, **LABELS,
        )  # fmt: skip
        return t.Mask2FormerForUniversalSegmentation(config)
    if kind == "upernet":
        features: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
        backbone = t.ConvNextConfig(**features, out_features=["stage1", "stage2", "stage3", "stage4"])
        config = t.UperNetConfig(backbone_config=backbone, hidden_size=16, auxiliary_in_channels=24, **LABELS)
        return t.UperNetForSemanticSegmentation(config)
    sizes = {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8, "backbone_out_indices": [0, 1, 2, 3]}
    return t.DPTForSemanticSegmentation(t.DPTConfig(**TINY_VIT, intermediate_size=32, **sizes, **LABELS))


def saved(folder: Path, kind: str) -> tuple[Path, Any]:
    model = network(kind).eval()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder, model
