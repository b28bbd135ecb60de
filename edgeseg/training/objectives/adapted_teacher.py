"""A teacher that was trained for another Spec than the student's."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.errors import OptionError
from edgeseg.spec import Spec


class AdaptedTeacher(nn.Module):
    """A net trained for `own`, used for `spec`: images [N, 3, H, W] as `spec` has them -> logits of its classes.

    Pixels are converted to the teacher's color order and normalization. Classes that only the teacher knows are
    dropped; a softmax over the others redistributes their share. OptionError for a class that it does not know.
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
