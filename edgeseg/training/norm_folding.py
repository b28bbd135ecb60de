"""Folding batch norms into the layers before them.

Both are recognized from a run, not from the code: a batch norm is folded where it is the only reader of the only output
of a convolution. So subclasses, functional calls and nets that torch.fx cannot trace need no special cases.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

NORM = nn.modules.batchnorm._BatchNorm
PLAIN_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def count_norms(model: nn.Module) -> int:
    return sum(isinstance(m, NORM) for m in model.modules())


class _RecordCalls(TorchFunctionMode):
    """Every call of torch from tensors to tensors, and how many calls read each tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], Any]] = []  # keeps all tensors alive, so that ids stay unique
        self.readers: Counter[int] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(t, Tensor) for t in tree_leaves(result)):
            self.calls.append((func, (*args, kwargs), result))
            self.readers.update(id(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor))
        return result


def fold_norms(model: nn.Module, image: Tensor) -> dict[str, str]:
    """Fold batch norms in place; the names of those that stay, and the reason for each."""
    with _RecordCalls() as record:
        model(image)
    layers = {id(m.weight): m for m in model.modules() if isinstance(m, LAYERS)}
    producers = {
        id(result): layers[id(args[1])]
        for func, args, result in record.calls
        if func in (F.conv2d, F.conv_transpose2d, F.linear) and id(args[1]) in layers
    }
    norm_inputs = {id(args[1]): args[0] for func, args, _ in record.calls if func is F.batch_norm}
    unfolded: dict[str, str] = {}
    for name, norm in [(n, m) for n, m in model.named_modules() if isinstance(m, NORM)]:
        tensor = norm_inputs.get(id(norm.running_mean)) if norm.running_mean is not None else None
        layer = producers.get(id(tensor))
        # What stays in the norm's place: timm's norms have their activation inside.
        rest = nn.Identity() if type(norm) in PLAIN_NORMS else getattr(norm, "act", None)
        if tensor is None:
            unfolded[name] = "it never runs on running statistics"
        elif layer is None or (isinstance(layer, nn.Linear) and tensor.ndim != 2):
            unfolded[name] = "it does not follow a convolution"
        elif max(record.readers[id(t)] for t in (tensor, layer.weight, norm.running_mean)) > 1:
            unfolded[name] = "its convolution's output, or one of the two layers, is used more than once"
        elif not isinstance(rest, nn.Module):
            unfolded[name] = f"what a {type(norm).__name__} does after the normalization is not known"
        else:
            fold_into(layer, norm)
            model.set_submodule(name, rest)
    return unfolded


def fold_into(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, norm: nn.Module) -> None:
    """In place: w' = w g / sqrt(var + eps), b' = (b - mean) g / sqrt(var + eps) + beta, in float64."""
    source: Any = norm
    mean, var = source.running_mean.double(), source.running_var.double()
    gain = (var + source.eps).rsqrt() * (source.weight.double() if source.weight is not None else 1)
    shift = source.bias.double() if source.bias is not None else 0
    weight, kind = layer.weight.double(), layer.weight.dtype
    bias = layer.bias.double() if layer.bias is not None else torch.zeros_like(mean)
    if isinstance(layer, nn.ConvTranspose2d):  # [in, out / groups, ...], grouped by output
        grouped = weight.reshape(layer.groups, -1, *weight.shape[1:]) * gain.reshape(layer.groups, 1, -1, 1, 1)
        weight = grouped.reshape(weight.shape)
    else:
        weight = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    layer.weight = nn.Parameter(weight.to(kind), requires_grad=layer.weight.requires_grad)
    layer.bias = nn.Parameter(((bias - mean) * gain + shift).to(kind), requires_grad=layer.weight.requires_grad)
