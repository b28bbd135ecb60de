"""The loss of one batch: what the labels say, and what the teacher says where there is one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.errors import OptionError
from edgeseg.recipe import Distil, Settings
from edgeseg.training import losses


class Lessons:
    """lessons(model, images, labels) is the loss as a scalar. `autocast` is entered around the teacher."""

    def __init__(
        self,
        settings: Settings,
        classes: int,
        teacher: nn.Module | None = None,
        distil: Distil | None = None,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ):
        self.settings, self.teacher, self.distil, self.autocast = settings, teacher, distil or Distil(), autocast
        self.weights = torch.tensor(settings.class_weights) if settings.class_weights else None
        if self.weights is not None and len(self.weights) != classes:
            raise OptionError(
                f"class_weights has {len(self.weights)} numbers, the dataset {classes} classes.", "Give one per class."
            )

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        pick = self.sample()
        logits = model(images)[pick].float().contiguous()
        labels = labels[pick]
        loss = self.settings.ce * self.cross_entropy(logits, labels)
        if self.teacher is not None:
            with torch.no_grad(), self.autocast():
                wanted = self.teacher(images)[pick].float().contiguous()
            weight, temperature = self.distil.weight, self.distil.temperature
            soft = losses.soft_targets(logits, wanted, labels, temperature)
            loss = (1 - weight) * loss + weight * soft
            if self.distil.channel:
                loss = loss + self.distil.channel * losses.channel_wise(logits, wanted, temperature)
        for share, term in (
            (self.settings.dice, losses.dice),
            (self.settings.iou, losses.lovasz),
            (self.settings.boundary, losses.boundary),
        ):
            if share:
                loss = loss + share * term(logits, labels)
        return loss

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights = None if self.weights is None else self.weights.to(logits.device)
        return losses.cross_entropy(logits, labels, weights, self.settings.smoothing, self.settings.ohem)

    def sample(self) -> tuple[Any, ...]:
        """Every `stride`-th pixel of every such row from a random start: losses of all pixels cost more than the net,
        and neighbours say much the same."""
        stride = self.settings.stride
        top, left = torch.randint(stride, (2,)).tolist()
        return ..., slice(top, None, stride), slice(left, None, stride)
