"""NetConfig -> nn.Module. Every net maps [N, 3, H, W] to logits [N, classes, H, W].

The last operation is one bilinear resize with a fixed factor (align_corners off), or none where the net predicts at
full size: the export then ends in a single Resize, which the deploy graph can cut off. edgeseg's own families are one
file each in families/; any other name is an architecture of segmentation_models_pytorch (smp). Encoders are smp's, or
timm's as `tu-NAME`. The families of transformers come in sizes, or from a folder or the hub with all their weights.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import torch
from torch import nn

from edgeseg.errors import OptionError, unknown
from edgeseg.recipe import NetConfig
from edgeseg.training import encoder_weights, families, hugging_face_nets, smp_internals


def build(net: NetConfig, classes: int) -> nn.Module:
    """The net with random weights, or with its encoder's from `net.weights`. Seed torch before.

    OptionError for a net that does not exist, FileError or EdgesegError for weights that cannot be had.
    """
    check(net)
    if is_pretrained(net):
        raise OptionError(
            f"Architecture {net.arch!r} with weights {net.weights!r}.", "They need the dataset's classes."
        )
    own = net.arch in families.names()
    model: Any = (
        families.get(net.arch).build(classes, net.width, net.encoder)
        if own
        else smp_internals.create(net.arch, net.encoder, classes)
    )
    if net.weights:
        encoder = cast(nn.Module, model.encoder)
        inner = getattr(encoder, "model", encoder)  # both smp and blocks.TimmEncoder wrap timm's module
        tensors = encoder_weights.load(net.encoder, net.weights)
        encoder_weights.fill(cast(nn.Module, inner), tensors, f"Encoder weights {net.weights}")
    whole: nn.Module = model
    return whole


def check(net: NetConfig) -> None:
    """Raises OptionError for an architecture or encoder that does not exist, without building it."""
    own = families.names()
    if is_pretrained(net):
        return _check_pretrained(net)
    if net.arch in own and not net.encoder:
        if net.weights:
            raise OptionError(
                f"Architecture {net.arch!r} with weights {net.weights!r}.", "They are an encoder's: name it."
            )
        return None
    known = smp_internals.architectures() | set(own)
    if net.arch not in known:
        raise unknown("architecture", net.arch, known)
    if net.arch in own and hasattr(families.get(net.arch), "SIZES"):
        return _check_size(net, families.get(net.arch).SIZES)
    if net.arch in own and not families.get(net.arch).ENCODERS:
        raise OptionError(f"Architecture {net.arch!r} with encoder {net.encoder!r}.", "It has its own: name none.")
    _check_encoder(net, own=net.arch in own)
    if net.width != 1 and net.arch not in own:
        raise OptionError(
            f"Architecture {net.arch!r} with width {net.width}.", "Only edgeseg's own families have a width."
        )
    return None


def is_pretrained(net: NetConfig) -> bool:
    """Whether `weights` are those of a whole network of transformers, a folder or hf:NAME, not an encoder's."""
    own = families.names()
    sized = net.arch in own and hasattr(families.get(net.arch), "SIZES")
    return bool(net.weights) and not net.encoder and (sized or net.arch not in own)


def _check_pretrained(net: NetConfig) -> None:
    semantic, universal = hugging_face_nets.networks(hugging_face_nets.library(f"Weights {net.weights!r}"))
    if net.arch not in semantic | universal:
        raise unknown("architecture", net.arch, semantic | universal)
    if net.width != 1:
        raise OptionError(f"Weights {net.weights!r} with width {net.width}.", "The weights' folder says the width.")


def _check_size(net: NetConfig, sizes: Collection[str]) -> None:
    if net.encoder not in sizes:
        raise unknown(f"size of {net.arch}", net.encoder, sizes)
    if net.weights:
        raise OptionError(
            f"Architecture {net.arch!r} of size {net.encoder!r} with weights {net.weights!r}.",
            "The weights are a whole network, whose folder says its size: leave out encoder.",
        )


def _check_encoder(net: NetConfig, own: bool) -> None:
    import timm

    from_timm = net.encoder.startswith("tu-")
    encoders = {f"tu-{name}" for name in timm.list_models()} if from_timm or own else set()
    encoders |= set() if own else smp_internals.encoders()
    name = net.encoder.split(".")[0] if from_timm else net.encoder  # timm's tag follows the dot
    if name not in encoders:
        error = unknown("encoder", net.encoder, encoders)
        raise OptionError(error.what, error.hint.split(" Known:")[0] + " See the encoders of smp and timm (tu-NAME).")


def channels_last(model: nn.Module) -> nn.Module:
    """In place: the memory layout that trains 2.6 times faster on CPUs."""
    untyped: Any = model  # torch's stubs do not know memory_format here
    untyped.to(memory_format=torch.channels_last)
    return model


def head(model: nn.Module) -> list[nn.Module]:
    """The layers whose outputs are the classes; pruning must leave them alone."""
    last = getattr(model, "classifier", None) or getattr(model, "segmentation_head", None)
    if isinstance(model, (hugging_face_nets.Semantic, hugging_face_nets.Queries)):
        raise OptionError(
            "Networks of transformers can neither be pruned nor be compared by their features.",
            "Set prune.macs = 1, distill.feature = 0 and distill.structure = 0, or choose another arch.",
        )
    if not isinstance(last, nn.Module):
        raise OptionError(f"{type(model).__name__} has no known head.", "Expected .classifier or .segmentation_head.")
    return [m for m in last.modules() if isinstance(m, nn.Conv2d)]
