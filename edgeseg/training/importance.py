"""Channel importance: what a net loses with a channel, so that pruning removes the least important ones.

`taylor` uses gradients of the loss. Multiply a channel by a gate g: when it closes, the loss changes by dL/dg to first
order, which for a batch norm is gamma dL/dgamma + beta dL/dbeta. Its square, averaged over batches, is the channel's
importance (Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning"), in the same unit in every layer.
The other kinds use weights only, relative to the mean of their layer.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError, unknown
from edgeseg.recipe import Settings
from edgeseg.training.loader import SegmentationDataset, batches
from edgeseg.training.norm_folding import LAYERS, NORM
from edgeseg.training.objectives.objective import Objective

BATCHES = 24
BATCH = 4
NORMS = (NORM, nn.LayerNorm, nn.GroupNorm)
ChannelScores = dict[str, Tensor]  # name of a norm or layer -> [channels]
Importance = str | ChannelScores
Scorer = Callable[[Any], Tensor | None]  # a group of torch-pruning -> one number per channel


def taylor_importance(model: nn.Module, train: SegmentationDataset, settings: Settings, seed: int) -> ChannelScores:
    """The squared change of the loss when a channel is removed, to first order, for each norm and layer."""
    torch.manual_seed(seed)
    objective = Objective(settings, len(train.spec.classes))
    model.eval().requires_grad_(True).zero_grad()
    sums: ChannelScores = {}
    count = 0
    for images, labels in islice(batches(train, min(BATCH, settings.batch), 0, True), BATCHES):
        objective(model, images, labels).backward()  # type: ignore[no-untyped-call]
        for name, module in model.named_modules():
            weight = module.weight if isinstance(module, (*NORMS, *LAYERS)) else None
            if weight is not None and weight.grad is not None and (weight.ndim == 1 or isinstance(module, LAYERS)):
                sums[name] = sums.get(name, 0) + _gate_gradient(module).square()
        model.zero_grad()
        count += 1
    return {name: total / count for name, total in sums.items()}


def _gate_gradient(module: Any) -> Tensor:
    """dL/dg of each output channel."""
    products: Tensor = (module.weight * module.weight.grad).detach()
    if isinstance(module, nn.ConvTranspose2d):  # [inputs, outputs of a group, ...]
        grouped = products.reshape(module.groups, -1, *products.shape[1:])
        gradient = grouped.transpose(1, 2).reshape(module.out_channels, -1).sum(1)
    else:
        gradient = products.flatten(1).sum(1) if products.ndim > 1 else products
    if module.bias is not None and module.bias.grad is not None:
        gradient = gradient + (module.bias * module.bias.grad).detach()
    return gradient


def scorer(importance: Importance, graph: Any, names: dict[nn.Module, str]) -> Scorer:
    """`importance`: the result of taylor_importance, or "magnitude" or "bn". `names`: of the modules in `graph`."""
    if not isinstance(importance, str):
        return _by_scores(importance, graph, names)
    if importance == "taylor":
        raise EdgesegError(
            "Taylor importance needs gradients of the loss.", "Pass prune() the result of taylor_importance()."
        )
    import torch_pruning as tp

    if importance not in WEIGHTS:
        raise unknown("importance", importance, ("taylor", *WEIGHTS))
    by_weights: Scorer = WEIGHTS[importance](tp.importance)
    return by_weights


WEIGHTS: dict[str, Callable[[Any], Any]] = {
    "magnitude": lambda tp: tp.GroupMagnitudeImportance(p=2),  # L2 norm of all weights that depend on a channel
    "bn": lambda tp: tp.BNScaleImportance(),  # the scale of the batch norm after it (Liu et al. 2017)
}


def _by_scores(scores: ChannelScores, graph: Any, names: dict[nn.Module, str]) -> Scorer:
    """Sum the scores over all modules that lose a channel of a group: norms, or layers where there is no norm."""

    def score(group: Any) -> Tensor | None:
        sums: dict[bool, Tensor] = {}
        for item in group:
            module = item.dep.target.module
            own = scores.get(names.get(module, ""))
            if own is None or not graph.is_out_channel_pruning_fn(item.dep.handler):
                continue
            if max(item.idxs) >= len(own):
                return None  # torch-pruning miscounts the split heads of attention: leave them alone
            total = sums.setdefault(isinstance(module, NORMS), torch.zeros(len(group[0].idxs)))
            total.index_add_(0, torch.tensor(item.root_idxs), own[torch.tensor(item.idxs)])
        return sums.get(True, sums.get(False))

    return score
