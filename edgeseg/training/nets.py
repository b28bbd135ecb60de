"""NetConfig -> nn.Module. Every net maps [N, 3, H, W] to logits [N, classes, H, W].

The last operation is one bilinear resize with a fixed factor (align_corners off), or none where the net predicts at
full size: export then writes a single clean Resize, which the deploy graph can cut off. A new family of our own is one
file and one line in FAMILIES; any other name is an architecture of segmentation_models_pytorch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgeseg.errors import FileError, OptionError, require_file, unknown
from edgeseg.recipe import NetConfig
from edgeseg.training.lite import Lite

FAMILIES: dict[str, Callable[[int, float, str], nn.Module]] = {"lite": Lite}


def build(net: NetConfig, classes: int) -> nn.Module:
    """The net with random weights, or with its encoder's from `net.weights`. Seed torch before."""
    if net.arch not in FAMILIES:
        return _smp(net, classes)
    check(net)
    model = FAMILIES[net.arch](classes, net.width, net.encoder)
    if net.weights and not net.encoder:
        raise OptionError(f"Architecture {net.arch!r} with weights {net.weights!r}.", "They are an encoder's: name it.")
    if net.weights:
        load_encoder(cast(nn.Module, model.encoder), Path(net.weights))
    return model


def check(net: NetConfig) -> None:
    """Raises OptionError for an architecture or encoder that does not exist, without building it."""
    if net.arch in FAMILIES and not net.encoder:
        return
    import segmentation_models_pytorch as smp
    import timm

    known = {str(name).lower() for name in smp.MODEL_ARCHITECTURES_MAPPING}
    if net.arch.lower() not in known | set(FAMILIES):
        raise unknown("architecture", net.arch, known | set(FAMILIES))
    encoders = set() if net.arch in FAMILIES else set(smp.encoders.encoders)
    if net.encoder.startswith("tu-"):
        encoders = {f"tu-{name}" for name in timm.list_models()}
        name = net.encoder.split(".")[0]
    else:
        name = net.encoder
    if name not in encoders:
        error = unknown("encoder", net.encoder, encoders)
        raise OptionError(error.what, error.hint.split(" Known:")[0] + " See the encoders of smp and timm (tu-NAME).")
    if net.width != 1 and net.arch not in FAMILIES:
        raise OptionError(f"Architecture {net.arch!r} with width {net.width}.", "Only our own families have a width.")


def channels_last(model: nn.Module) -> nn.Module:
    """In place: the memory layout that trains 2.6 times faster on CPUs."""
    untyped: Any = model  # torch's stubs do not know memory_format here
    untyped.to(memory_format=torch.channels_last)
    return model


def head(model: nn.Module) -> list[nn.Module]:
    """The layers whose outputs are the classes; pruning must leave them alone."""
    last = getattr(model, "classifier", None) or getattr(model, "segmentation_head", None)
    if not isinstance(last, nn.Module):
        raise OptionError(f"{type(model).__name__} has no known head.", "Expected .classifier or .segmentation_head.")
    return [m for m in last.modules() if isinstance(m, nn.Conv2d)]


def _smp(net: NetConfig, classes: int) -> nn.Module:
    import segmentation_models_pytorch as smp

    check(net)
    model: Any = smp.create_model(net.arch, encoder_name=net.encoder, encoder_weights=None, classes=classes)
    up = model.segmentation_head[1]
    factor = float(getattr(up, "scale_factor", 1) or 1)  # smp interpolates with align_corners on
    model.segmentation_head[1] = Upsample(factor) if factor > 1 else nn.Identity()
    if net.weights:
        load_encoder(model.encoder, Path(net.weights))
    whole: nn.Module = model
    return whole


class Upsample(nn.Upsample):
    def __init__(self, factor: float):
        super().__init__(scale_factor=factor, mode="bilinear", align_corners=False)


def load_encoder(encoder: nn.Module, path: Path) -> None:
    """Fill an encoder from a safetensors file of timm's or torchvision's names; FileError unless it fits entirely.

    timm's feature extractors write `stages_0` where its classifiers write `stages.0`, so names are compared with
    dots for underscores. Tensors of the file that the encoder lacks (its classifier) are left out.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    try:
        tensors = safetensors.torch.load_file(require_file(path, "Encoder weights"))
    except (SafetensorError, OSError) as error:
        raise FileError(f"Encoder weights {path} cannot be read: {error}.", "Expected a safetensors file.") from None
    stored = {key.replace(".", "_"): tensor for key, tensor in tensors.items()}
    inner = getattr(encoder, "model", encoder)  # smp wraps timm's module
    assert isinstance(inner, nn.Module)
    filled: dict[str, Tensor] = {}
    wrong: list[str] = []
    for key, own in inner.state_dict().items():
        tensor = stored.get(key.replace(".", "_"))
        if tensor is not None and tensor.shape == own.shape:
            filled[key] = tensor
        elif not key.endswith("num_batches_tracked"):
            wrong.append(key if tensor is None else f"{key} {list(tensor.shape)} instead of {list(own.shape)}")
    if wrong:
        raise FileError(
            f"Encoder weights {path} do not fit: {len(wrong)} of {len(wrong) + len(filled)} tensors are missing or of "
            f"another shape, first {', '.join(wrong[:3])}.",
            "The file must be of this very encoder, under timm's names.",
        )
    inner.load_state_dict(filled, strict=False)
