"""NetConfig -> nn.Module. Every net maps [N, 3, H, W] to logits [N, classes, H, W].

The last operation is one bilinear resize with a fixed factor (align_corners off), or none where the net predicts at
full size: export then writes a single clean Resize, which the deploy graph can cut off. A family of our own is one file
of families/; any other name is an architecture of segmentation_models_pytorch (smp). Encoders are smp's, or timm's as
`tu-NAME`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError, FileError, OptionError, unknown
from edgeseg.files import require_file
from edgeseg.recipe import NetConfig
from edgeseg.training import families
from edgeseg.training.blocks import GridPool, any_size


def build(net: NetConfig, classes: int) -> nn.Module:
    """The net with random weights, or with its encoder's from `net.weights`. Seed torch before."""
    check(net)
    own = net.arch in families.names()
    model: Any = families.get(net.arch).build(classes, net.width, net.encoder) if own else _smp(net, classes)
    if net.weights:
        encoder = cast(nn.Module, model.encoder)
        inner = getattr(encoder, "model", encoder)  # timm's module lies inside one of smp's or ours
        by_file = is_file(net.weights)
        tensors = _from_file(Path(net.weights)) if by_file else _by_name(net.encoder, net.weights)
        fill(cast(nn.Module, inner), tensors, f"Encoder weights {net.weights}")
    whole: nn.Module = model
    return whole


def is_file(weights: str) -> bool:
    """Whether NetConfig.weights means a file; else it is a name that timm or smp can download."""
    return weights.endswith(".safetensors") or "/" in weights


def check(net: NetConfig) -> None:
    """Raises OptionError for an architecture or encoder that does not exist, without building it."""
    own = families.names()
    if net.arch in own and not net.encoder:
        if net.weights:
            raise OptionError(
                f"Architecture {net.arch!r} with weights {net.weights!r}.", "They are an encoder's: name it."
            )
        return
    import segmentation_models_pytorch as smp
    import timm

    known = {str(name).lower() for name in smp.MODEL_ARCHITECTURES_MAPPING} - {"dpt"}  # its head is of another kind
    if net.arch not in known | set(own):
        raise unknown("architecture", net.arch, known | set(own))
    if net.arch in own and not families.get(net.arch).ENCODERS:
        raise OptionError(f"Architecture {net.arch!r} with encoder {net.encoder!r}.", "It has its own: name none.")
    encoders = (
        {f"tu-{name}" for name in timm.list_models()} if net.encoder.startswith("tu-") or net.arch in own else set()
    )
    encoders |= set() if net.arch in own else set(smp.encoders.encoders)
    name = net.encoder.split(".")[0] if net.encoder.startswith("tu-") else net.encoder  # timm's tag follows the dot
    if name not in encoders:
        error = unknown("encoder", net.encoder, encoders)
        raise OptionError(error.what, error.hint.split(" Known:")[0] + " See the encoders of smp and timm (tu-NAME).")
    if net.width != 1 and net.arch not in own:
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
    from segmentation_models_pytorch.decoders.pspnet.decoder import PSPBlock

    sizes = any_size(net.encoder.removeprefix("tu-")) if net.encoder.startswith("tu-") else {}
    model: Any = smp.create_model(net.arch, encoder_name=net.encoder, encoder_weights=None, classes=classes, **sizes)
    up = model.segmentation_head[1]
    factor = float(getattr(up, "scale_factor", 1) or 1)  # smp interpolates with align_corners on
    model.segmentation_head[1] = Upsample(factor) if factor > 1 else nn.Identity()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, PSPBlock):
                setattr(module, name, Bins(child))
            elif isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):
                bins: Any = child.output_size
                setattr(module, name, GridPool(int(np.ravel(bins)[0])))
    whole: nn.Module = model
    return whole


class Bins(nn.Module):
    """smp's PSPBlock without the detour it takes in ONNX exports, which fails where the bins do not divide the map."""

    def __init__(self, block: Any):
        super().__init__()
        self.pool = block.pool  # the name is part of the checkpoint's keys

    def forward(self, x: Tensor) -> Tensor:
        size = int(x.shape[2]), int(x.shape[3])
        return F.interpolate(self.pool(x), size=size, mode="bilinear", align_corners=True)


class Upsample(nn.Upsample):
    def __init__(self, factor: float):
        super().__init__(scale_factor=factor, mode="bilinear", align_corners=False)


def _from_file(path: Path) -> dict[str, Tensor]:
    import safetensors.torch
    from safetensors import SafetensorError

    try:
        return safetensors.torch.load_file(require_file(path, "Encoder weights"))
    except (SafetensorError, OSError) as error:
        raise FileError(f"Encoder weights {path} cannot be read: {error}.", "Expected a safetensors file.") from None


def _by_name(encoder: str, weights: str) -> dict[str, Tensor]:
    """`weights`: "imagenet" for the encoder's default ones, or a tag of timm (a1_in1k) or smp (ssl). From the hub."""
    import segmentation_models_pytorch as smp
    import timm

    try:
        if encoder.startswith("tu-") or encoder not in smp.encoders.encoders:
            name = encoder.removeprefix("tu-")
            model = timm.create_model(name if weights == "imagenet" else f"{name}.{weights}", pretrained=True)
        else:
            model = smp.encoders.get_encoder(encoder, weights=weights)
    except Exception as error:  # the exceptions of the hub and of its network library share no base class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise EdgesegError(
            f"Encoder weights {weights!r} of {encoder} could not be downloaded: {reason}",
            "Without a network, fetch the safetensors file elsewhere and give its path: weights = 'FILE.safetensors'.",
        ) from error
    state: dict[str, Tensor] = model.state_dict()
    return state


def fill(encoder: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Fill an encoder from tensors under timm's or torchvision's names; FileError unless they fit entirely.

    timm's feature extractors write `stages_0` where its classifiers write `stages.0`, so names are compared with
    dots for underscores. Tensors that the encoder lacks (its classifier) are left out.
    """
    stored = {key.replace(".", "_"): tensor for key, tensor in tensors.items()}
    filled: dict[str, Tensor] = {}
    wrong: list[str] = []
    for key, own in encoder.state_dict().items():
        tensor = stored.get(key.replace(".", "_"))
        if tensor is not None and tensor.shape == own.shape:
            filled[key] = tensor
        elif not key.endswith("num_batches_tracked"):
            wrong.append(key if tensor is None else f"{key} {list(tensor.shape)} instead of {list(own.shape)}")
    if wrong:
        raise FileError(
            f"{source} do not fit: {len(wrong)} of {len(wrong) + len(filled)} tensors are missing or of "
            f"another shape, first {', '.join(wrong[:3])}.",
            "They must be of this very encoder, under timm's names.",
        )
    encoder.load_state_dict(filled, strict=False)
