"""Nets, losses, the training loop, distillation, pruning and export: the only package that imports torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from edgeseg.errors import MissingPackage

try:
    import torch
except ImportError as error:
    raise MissingPackage("torch", "Training and exporting a checkpoint", "train") from error


def _declare_torchvision_ops() -> torch.library.Library | None:
    """Declare two operators of torchvision where its compiled part cannot be loaded.

    timm and segmentation_models_pytorch import torchvision, whose wheel is built for CUDA. With a CPU build of torch
    that import fails with `operator torchvision::nms does not exist`, though neither of them ever calls it.
    """
    torchvision = importlib.util.find_spec("torchvision")
    if torchvision is None or torchvision.origin is None:
        return None
    for compiled in Path(torchvision.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(compiled))  # type: ignore[no-untyped-call]
        except OSError:
            library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            for name in ("nms", "qnms"):
                signature = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                library.define(signature)  # type: ignore[no-untyped-call]
            return library
    return None


_library = _declare_torchvision_ops()  # the declarations last as long as this object
