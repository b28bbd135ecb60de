"""The optimizer and its learning rate over the run."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from edgeseg.recipe import Settings

POWER = 0.9  # of the poly schedule (Chen et al. 2017)
MOMENTUM = 0.9


def optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW or SGD. Each parameter group carries `share`: its learning rate as a share of the schedule's."""
    # Weight decay on biases and batch norms only shrinks scales that the next layer restores (He et al. 2019).
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((name.startswith("encoder."), parameter.ndim > 1), []).append(parameter)
    rows: list[dict[str, Any]] = [
        {
            "params": parameters,
            "weight_decay": settings.weight_decay if matrix else 0.0,
            "share": settings.encoder_lr if encoder else 1.0,
        }
        for (encoder, matrix), parameters in groups.items()
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(rows, lr=settings.lr, momentum=MOMENTUM)
    return torch.optim.AdamW(rows, lr=settings.lr)


def rate(settings: Settings, done: int, total: int) -> float:
    """The learning rate of step `done` (from 0) of `total`: a linear warm-up, then down as `schedule` says."""
    warm = round(settings.warmup * total)
    if done < warm:
        return settings.lr * (done + 1) / warm
    way = (done - warm) / max(1, total - warm)
    if settings.schedule == "poly":
        return settings.lr * math.pow(max(0.0, 1 - way), POWER)
    if settings.schedule == "step":
        return settings.lr * (1.0 if way < 2 / 3 else 0.1 if way < 8 / 9 else 0.01)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * (done - warm) / max(1, total - warm)))
