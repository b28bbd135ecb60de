"""The optimizer and its learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from edgeseg.recipe import Settings

POWER = 0.9  # of the poly schedule (Chen et al. 2017)
MOMENTUM = 0.9


def optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW or SGD. Each parameter group has `lr_scale`, by which the schedule's learning rate is multiplied."""
    # Weight decay on biases and batch norms only shrinks scales that the next layer restores (He et al. 2019).
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    encoder_prefix = getattr(model, "encoder_prefix", "encoder.")
    for name, parameter in model.named_parameters():
        groups.setdefault((name.startswith(encoder_prefix), parameter.ndim > 1), []).append(parameter)
    parameter_groups: list[dict[str, list[nn.Parameter] | float]] = [
        {
            "params": parameters,
            "weight_decay": settings.weight_decay if matrix else 0.0,
            "lr_scale": settings.encoder_lr if encoder else 1.0,
        }
        for (encoder, matrix), parameters in groups.items()
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameter_groups, lr=settings.lr, momentum=MOMENTUM)
    return torch.optim.AdamW(parameter_groups, lr=settings.lr)


def learning_rate(settings: Settings, step: int, total: int) -> float:
    """The learning rate of `step` (from 0) of `total`: a linear warm-up, then a decay by `schedule`."""
    warmup = round(settings.warmup * total)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    if settings.schedule == "poly":
        return settings.lr * math.pow(max(0.0, 1 - progress), POWER)
    if settings.schedule == "step":
        return settings.lr * (1.0 if progress < 2 / 3 else 0.1 if progress < 8 / 9 else 0.01)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
