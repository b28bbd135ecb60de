"""The training objective of one batch: losses on the labels, and distillation losses where there is a teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.errors import OptionError
from edgeseg.recipe import Distill, Settings
from edgeseg.training import nets
from edgeseg.training.objectives import distillation_losses, losses
from edgeseg.training.objectives.adapted_teacher import AdaptedTeacher


class Objective:
    """`objective(model, images, labels)` is the loss as a scalar. `autocast` is entered around the teacher.

    images: float32 [N, 3, H, W]; labels: int64 [N, H, W]. With a fourth argument, the teacher's logits [N, C, H, W]
    from the teacher cache, the teacher itself does not run. OptionError unless `class_weights` has one per class.
    """

    def __init__(
        self,
        settings: Settings,
        classes: int,
        teacher: nn.Module | None = None,
        distill: Distill | None = None,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ):
        self.settings, self.teacher, self.distill, self.autocast = settings, teacher, distill or Distill(), autocast
        self.class_weights = torch.tensor(settings.class_weights) if settings.class_weights else None
        if self.class_weights is not None and len(self.class_weights) != classes:
            raise OptionError(
                f"class_weights has {len(self.class_weights)} numbers, the dataset {classes} classes.",
                "Give one per class.",
            )

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, cached: Tensor | None = None) -> Tensor:
        pixels = self.sample_pixels()
        with self.record_features(model) as student_maps:
            logits, matching = self._forward(model, images, labels)
        logits, labels = logits[pixels].float().contiguous(), labels[pixels]
        loss = self.settings.ce * self.cross_entropy(logits, labels)
        if self.teacher is not None:
            with torch.no_grad(), self.autocast(), self.record_features(self.teacher) as teacher_maps:
                targets = (self.teacher(images) if cached is None else cached)[pixels].float().contiguous()
            loss = self._distill(loss, logits, targets, labels)
            for weight, compare in (
                (self.distill.feature, distillation_losses.attention_transfer),
                (self.distill.structure, distillation_losses.pairwise_similarity),
            ):
                if weight:
                    loss = loss + weight * compare(student_maps[-1], teacher_maps[-1])
        for weight, term in self._terms():
            if weight:
                loss = loss + weight * term(logits, labels)
        return loss + self.settings.matching * matching

    def _forward(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | float]:
        """The logits, and the loss of the queries where the settings ask for it."""
        if not self.settings.matching:
            return model(images), 0.0
        logits, matching = model(images, class_segments(labels))
        return logits, matching

    def _terms(self) -> list[tuple[float, Callable[[Tensor, Tensor], Tensor]]]:
        """Weights and losses on labels, beside the cross-entropy."""
        settings = self.settings
        return [
            (settings.dice, losses.dice),
            (settings.iou, losses.lovasz),
            (settings.boundary, losses.boundary),
            (settings.focal, partial(losses.focal, gamma=settings.focal_gamma)),
            (settings.tversky, partial(losses.tversky, beta=settings.tversky_beta)),
        ]

    def _distill(self, loss: Tensor, logits: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
        """The loss on labels mixed with the losses on the teacher's logits."""
        weight, temperature = self.distill.weight, self.distill.temperature
        soft = distillation_losses.soft_targets(logits, targets, labels, temperature)
        loss = (1 - weight) * loss + weight * soft
        if self.distill.channel:
            loss = loss + self.distill.channel * distillation_losses.channel_wise(logits, targets, labels, temperature)
        return loss

    @contextmanager
    def record_features(self, net: nn.Module) -> Iterator[list[Tensor]]:
        """While `net` runs, collect the input of its head, [N, any, h, w]: the last feature map before the classes.

        Every net has one, with its own channels and stride. The list stays empty where no loss needs it.
        """
        features: list[Tensor] = []
        if not (self.distill.feature or self.distill.structure) or self.teacher is None:
            yield features
            return
        last = nets.head(net.net if isinstance(net, AdaptedTeacher) else net)[-1]
        hook = last.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
        try:
            yield features
        finally:
            hook.remove()

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        return losses.cross_entropy(logits, labels, weights, self.settings.smoothing, self.settings.ohem)

    def sample_pixels(self) -> tuple[Any, ...]:
        """An index that takes every `stride`-th pixel of every such row, from a random start.

        Losses of all pixels would cost more than the net, and neighboring pixels say much the same.
        """
        stride = self.settings.stride
        top, left = torch.randint(stride, (2,)).tolist()
        return ..., slice(top, None, stride), slice(left, None, stride)


def class_segments(labels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """For each of the labels [N, H, W]: masks [K, H, W] float32 of the classes that are there, and their ids [K]."""
    ids = [frame[frame != losses.IGNORE].unique() for frame in labels]
    return [(frame == own[:, None, None]).float() for frame, own in zip(labels, ids)], ids
