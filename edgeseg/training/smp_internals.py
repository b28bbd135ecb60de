"""segmentation_models_pytorch (smp): everything that edgeseg uses of it, in one place.

Beyond its documented functions these internals are relied on, as they are in the versions 0.5 and 0.6 that
pyproject.toml allows:

- `model.segmentation_head[1]` is the last upsampling (nn.UpsamplingBilinear2d or nn.Identity). It interpolates with
  align_corners, which no deploy graph recognizes, and is replaced.
- `decoders.pspnet.decoder.PSPBlock` has its layers in `.pool` and branches on the map's size while it is exported.
- `MODEL_ARCHITECTURES_MAPPING` and `encoders.encoders` are tables keyed by name.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.training.blocks import GridPool, any_size_options

VERSIONS = ">=0.5,<0.7"
OTHER_HEADS = {"dpt"}  # architectures without a segmentation head of this kind


def architectures() -> set[str]:
    """The names of smp's architectures that `create` can build."""
    import segmentation_models_pytorch as smp

    return {str(name).lower() for name in _attribute(smp, "MODEL_ARCHITECTURES_MAPPING")} - OTHER_HEADS


def encoders() -> set[str]:
    """The names of smp's own encoders; timm's are named tu-NAME."""
    import segmentation_models_pytorch as smp

    return set(_attribute(smp.encoders, "encoders"))


def create(arch: str, encoder: str, classes: int) -> nn.Module:
    """An smp model with random weights whose last step is one plain bilinear upsampling, or none."""
    import segmentation_models_pytorch as smp
    from segmentation_models_pytorch.decoders.pspnet import decoder as pspnet

    block = _attribute(pspnet, "PSPBlock")
    sizes = any_size_options(encoder.removeprefix("tu-")) if encoder.startswith("tu-") else {}
    model: Any = smp.create_model(arch, encoder_name=encoder, encoder_weights=None, classes=classes, **sizes)
    _replace_upsampling(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, block):
                setattr(module, name, PyramidBin(_attribute(child, "pool")))
            elif isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):
                bins: Any = child.output_size
                setattr(module, name, GridPool(int(np.ravel(bins)[0])))
    whole: nn.Module = model
    return whole


def pretrained_encoder(name: str, weights: str) -> nn.Module:
    """One of smp's own encoders with downloaded weights."""
    import segmentation_models_pytorch as smp

    encoder: nn.Module = smp.encoders.get_encoder(name, weights=weights)
    return encoder


class PyramidBin(nn.Module):
    """smp's PSPBlock without the branch that its ONNX export takes, which fails where bins do not divide the map."""

    def __init__(self, pool: nn.Module):
        super().__init__()
        self.pool = pool  # the name is part of the checkpoint's keys

    def forward(self, x: Tensor) -> Tensor:
        size = int(x.shape[2]), int(x.shape[3])
        return F.interpolate(self.pool(x), size=size, mode="bilinear", align_corners=True)


class Upsample(nn.Upsample):
    def __init__(self, factor: float):
        super().__init__(scale_factor=factor, mode="bilinear", align_corners=False)


def _replace_upsampling(model: Any) -> None:
    head: Any = _attribute(model, "segmentation_head")
    if not (isinstance(head, nn.Sequential) and len(head) > 1 and isinstance(head[1], (nn.Upsample, nn.Identity))):
        raise _unsupported("segmentation_head[1], the last upsampling")
    factor = float(getattr(head[1], "scale_factor", 1) or 1)
    head[1] = Upsample(factor) if factor > 1 else nn.Identity()


def _attribute(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError as error:
        raise _unsupported(name) from error


def _unsupported(internal: str) -> EdgesegError:
    version = importlib.metadata.version("segmentation-models-pytorch")
    return EdgesegError(
        f"segmentation-models-pytorch {version} has no {internal}, which edgeseg relies on.",
        f"Expected a version {VERSIONS}: pip install 'segmentation-models-pytorch{VERSIONS}'.",
    )
