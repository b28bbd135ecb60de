"""Segmentation networks of torchvision with published weights, as ONNX with a Spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.errors import FileError, MissingPackage, first_line, unknown
from edgeseg.files import write_bytes
from edgeseg.spec import Spec
from edgeseg.training.onnx_export import verified_onnx


class Scores(nn.Module):
    """Logits [1, C, H, W] alone, of networks that return them beside auxiliary ones."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.model(image)["out"]
        return logits


def export_torchvision(builder: str, weights: Path, spec: Spec, path: Path) -> Path:
    """Write torchvision's `builder` with these weights (.pth, a state dict) as ONNX.

    FileError for weights that do not fit it.
    """
    model = _built(builder, len(spec.classes))
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        kept = {key: value for key, value in state.items() if not key.startswith("aux_classifier.")}
        model.load_state_dict(kept)
    except Exception as error:  # torch raises what its unpickler and its modules do
        raise FileError(
            f"The weights {weights} do not fit {builder}: {first_line(error)}",
            "They are damaged, or another network's.",
        ) from error
    write_bytes(path, verified_onnx(Scores(model).eval(), spec, builder))
    return path


def _built(builder: str, classes: int) -> nn.Module:
    try:
        from torchvision.models import segmentation
    except ImportError as error:
        raise MissingPackage("torchvision", "Building a network of torchvision", "train") from error
    known: Any = segmentation
    builders = [name for name in dir(known) if name.startswith(("lraspp_", "deeplabv3_", "fcn_"))]
    if builder not in builders:
        raise unknown("network of torchvision", builder, builders)
    model: nn.Module = getattr(known, builder)(weights=None, weights_backbone=None, num_classes=classes)
    return model
