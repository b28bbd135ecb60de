"""The loss of one batch: what the labels say, and what the teacher says where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.errors import OptionError
from edgeseg.recipe import Distill, Settings
from edgeseg.spec import Spec
from edgeseg.training import nets
from edgeseg.training.objectives import losses


class Lessons:
    """lessons(model, images, labels) is the loss as a scalar. `autocast` is entered around the teacher.

    With a fourth argument, the teacher's logits [N, C, H, W] as they were kept (answers.py), it is not asked again.
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
        self.weights = torch.tensor(settings.class_weights) if settings.class_weights else None
        if self.weights is not None and len(self.weights) != classes:
            raise OptionError(
                f"class_weights has {len(self.weights)} numbers, the dataset {classes} classes.", "Give one per class."
            )

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, answers: Tensor | None = None) -> Tensor:
        pick = self.sample()
        with self.listen(model) as own:
            logits = model(images)[pick].float().contiguous()
        labels = labels[pick]
        loss = self.settings.ce * self.cross_entropy(logits, labels)
        if self.teacher is not None:
            with torch.no_grad(), self.autocast(), self.listen(self.teacher) as theirs:
                wanted = (self.teacher(images) if answers is None else answers)[pick].float().contiguous()
            weight, temperature = self.distill.weight, self.distill.temperature
            soft = losses.soft_targets(logits, wanted, labels, temperature)
            loss = (1 - weight) * loss + weight * soft
            if self.distill.channel:
                loss = loss + self.distill.channel * losses.channel_wise(logits, wanted, labels, temperature)
            for share, compare in (
                (self.distill.feature, losses.attention),
                (self.distill.structure, losses.structure),
            ):
                if share:
                    loss = loss + share * compare(own[-1], theirs[-1])
        for share, term in (
            (self.settings.dice, losses.dice),
            (self.settings.iou, losses.lovasz),
            (self.settings.boundary, losses.boundary),
        ):
            if share:
                loss = loss + share * term(logits, labels)
        return loss

    @contextmanager
    def listen(self, net: nn.Module) -> Iterator[list[Tensor]]:
        """What goes into the head of `net` while it runs, [N, any, h, w]: the last map that is not yet classes. Every
        net has one, of its own channels and stride. Nothing where no loss looks at it."""
        heard: list[Tensor] = []
        if not (self.distill.feature or self.distill.structure) or self.teacher is None:
            yield heard
            return
        last = nets.head(net.net if isinstance(net, Teacher) else net)[-1]
        hook = last.register_forward_pre_hook(lambda module, inputs: heard.append(inputs[0]))
        try:
            yield heard
        finally:
            hook.remove()

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights = None if self.weights is None else self.weights.to(logits.device)
        return losses.cross_entropy(logits, labels, weights, self.settings.smoothing, self.settings.ohem)

    def sample(self) -> tuple[Any, ...]:
        """Every `stride`-th pixel of every such row from a random start: losses of all pixels cost more than the net,
        and neighbors say much the same."""
        stride = self.settings.stride
        top, left = torch.randint(stride, (2,)).tolist()
        return ..., slice(top, None, stride), slice(left, None, stride)


class Teacher(nn.Module):
    """A net that was trained for the Spec `own`, answering for `spec`: images as `spec` has them, logits of its
    classes.

    The pixels are put into the teacher's color order and normalization; classes that only the teacher knows are left
    out, and a softmax over the others shares their part out. Raises OptionError for classes that it does not know.
    """

    index: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module, own: Spec, spec: Spec, path: Path):
        super().__init__()
        if missing := [name for name in spec.classes if name not in own.classes]:
            raise OptionError(
                f"Teacher {path} does not know {', '.join(missing)}; it knows the classes {', '.join(own.classes)}.",
                "Classes are matched by name: rename them in classes.txt, or train the teacher on this dataset.",
            )
        self.net, self.swap = net, own.color != spec.color
        before, after = (torch.tensor([s.mean, s.std]).reshape(2, 3, 1, 1) for s in (spec, own))
        before = before.flip(1) if self.swap else before
        self.register_buffer("index", torch.tensor([own.classes.index(name) for name in spec.classes]))
        self.register_buffer("scale", before[1] / after[1])
        self.register_buffer("shift", (before[0] - after[0]) / after[1])

    def forward(self, images: Tensor) -> Tensor:
        images = images.flip(1) if self.swap else images
        logits: Tensor = self.net(images * self.scale + self.shift)
        return logits[:, self.index]
