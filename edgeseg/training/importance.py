"""Importance: what a net loses with a channel, so that pruning takes those that matter least.

`taylor` asks the loss. Multiply a channel by a gate g: when it closes, the loss changes by dL/dg to first order, which
for a batch norm is gamma dL/dgamma + beta dL/dbeta. Its square, the mean over batches, is the channel's importance
(Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning"), in the same unit wherever the channel is.
The others look at weights alone, relative to the mean of their layer.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError, unknown
from edgeseg.recipe import Settings
from edgeseg.training.fusion import LAYERS, NORM
from edgeseg.training.loader import SegmentationDataset, batches
from edgeseg.training.objectives.distillation import Lessons

BATCHES = 24
BATCH = 4
NORMS = (NORM, nn.LayerNorm, nn.GroupNorm)
Losses = dict[str, Tensor]
Importance = str | Losses
Scorer = Callable[[Any], Tensor | None]  # a group of torch-pruning -> one number for each of its channels


def losses(model: nn.Module, train: SegmentationDataset, settings: Settings, seed: int) -> Losses:
    """What the loss changes by, squared, when a channel leaves: module name -> [channels], for norms and layers."""
    torch.manual_seed(seed)
    lessons = Lessons(settings, len(train.spec.classes))
    model.eval().requires_grad_(True).zero_grad()
    found: Losses = {}
    count = 0
    for images, labels in islice(batches(train, min(BATCH, settings.batch), 0, True), BATCHES):
        lessons(model, images, labels).backward()  # type: ignore[no-untyped-call]
        for name, module in model.named_modules():
            weight = module.weight if isinstance(module, (*NORMS, *LAYERS)) else None
            if weight is not None and weight.grad is not None and (weight.ndim == 1 or isinstance(module, LAYERS)):
                found[name] = found.get(name, 0) + _at_gates(module).square()
        model.zero_grad()
        count += 1
    return {name: total / count for name, total in found.items()}


def _at_gates(module: Any) -> Tensor:
    """dL/dg of each output channel."""
    products: Tensor = (module.weight * module.weight.grad).detach()
    if isinstance(module, nn.ConvTranspose2d):  # [inputs, outputs of a group, ...]
        grouped = products.reshape(module.groups, -1, *products.shape[1:])
        found = grouped.transpose(1, 2).reshape(module.out_channels, -1).sum(1)
    else:
        found = products.flatten(1).sum(1) if products.ndim > 1 else products
    if module.bias is not None and module.bias.grad is not None:
        found = found + (module.bias * module.bias.grad).detach()
    return found


def scorer(importance: Importance, graph: Any, names: dict[nn.Module, str]) -> Scorer:
    """`importance`: what `losses` found, or "magnitude" or "bn". `names` of the modules in torch-pruning's `graph`."""
    if not isinstance(importance, str):
        return _by_losses(importance, graph, names)
    if importance == "taylor":
        raise EdgesegError("Taylor importance asks the loss.", "Give prune() what importance.losses() finds.")
    import torch_pruning as tp

    if importance not in WEIGHTS:
        raise unknown("importance", importance, ("taylor", *WEIGHTS))
    made: Scorer = WEIGHTS[importance](tp.importance)
    return made


WEIGHTS: dict[str, Callable[[Any], Any]] = {
    "magnitude": lambda tp: tp.GroupMagnitudeImportance(p=2),  # L2 norm of all weights that depend on a channel
    "bn": lambda tp: tp.BNScaleImportance(),  # the scale of the batch norm behind it (Liu et al. 2017)
}


def _by_losses(found: Losses, graph: Any, names: dict[nn.Module, str]) -> Scorer:
    """A channel of a group leaves several layers: their losses add up. Norms tell, layers only where there is none."""

    def score(group: Any) -> Tensor | None:
        sums: dict[bool, Tensor] = {}
        for item in group:
            module = item.dep.target.module
            own = found.get(names.get(module, ""))
            if own is None or not graph.is_out_channel_pruning_fn(item.dep.handler):
                continue
            if max(item.idxs) >= len(own):
                return None  # torch-pruning lost count (attention's split heads): leave them alone
            total = sums.setdefault(isinstance(module, NORMS), torch.zeros(len(group[0].idxs)))
            total.index_add_(0, torch.tensor(item.root_idxs), own[torch.tensor(item.idxs)])
        return sums.get(True, sums.get(False))

    return score
