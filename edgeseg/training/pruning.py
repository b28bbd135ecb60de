"""Structured pruning: whole channels leave the net, which makes every runtime faster, until a share of MACs is left."""

from __future__ import annotations

import copy

import torch
from torch import nn

from edgeseg.errors import EdgesegError
from edgeseg.training import nets
from edgeseg.training.export import macs_params

TRIES = 8


def prune(model: nn.Module, size: tuple[int, int], keep: float, round_to: int = 8) -> nn.Module:
    """A pruned copy with at most `keep` (0..1) of the multiply-accumulates at `size` (height, width), and hardly less.

    The share of channels that must go for that is found by bisection, since channels differ in what they cost. Raises
    EdgesegError where the target cannot be reached.
    """
    goal = keep * macs_params(model, size)[0]
    low, high = 0.0, 1.0
    best = copy.deepcopy(model)
    for _ in range(TRIES if keep < 1 else 0):
        middle = (low + high) / 2
        candidate = cut(model, size, middle, round_to)
        if macs_params(candidate, size)[0] <= goal:
            best, high = candidate, middle
        else:
            low = middle
    if macs_params(best, size)[0] > goal:
        raise EdgesegError(
            f"Pruning cannot bring this net to {keep:.0%} of its multiply-accumulates.",
            "Raise prune.macs or lower prune.round_to in the recipe.",
        )
    return best


def cut(model: nn.Module, size: tuple[int, int], ratio: float, round_to: int) -> nn.Module:
    """A copy without the least important `ratio` (0..1) of all channels; layers keep multiples of `round_to`.

    The channels of the whole net compete by the L2 norm of all weights that depend on them, relative to the mean of
    their layer (Fang et al. 2023, DepGraph). No layer loses more than 80 %, so that none becomes a bottleneck.
    """
    import torch_pruning as tp

    model = copy.deepcopy(model).eval().requires_grad_(True)  # the dependency graph is traced through autograd
    tp.BasePruner(
        model,
        torch.zeros(1, 3, *size),
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=ratio,
        max_pruning_ratio=0.8,
        round_to=round_to,
        ignored_layers=nets.head(model),
    ).step()
    return model
