"""Validation during training: pixel counts on a split, and pictures of a few of its frames."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.evaluation.pictures import strip
from edgeseg.images import Image
from edgeseg.training import devices, metrics
from edgeseg.training.loader import SegmentationDataset, batches

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@torch.no_grad()
def evaluate(
    model: nn.Module, frames: SegmentationDataset, batch: int = 8, fabric: Fabric | None = None, workers: int = 0
) -> Tensor:
    """Pixel counts [C, C] at the network's size, summed over all processes, in the precision of the training.

    Rows are labels, columns predictions. The model's training mode is restored.
    """
    rank, world = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    devices.broadcast_buffers(model)
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    classes = len(frames.spec.classes)
    counts = torch.zeros(classes, classes, dtype=torch.int64, device=device)
    for images, labels in batches(frames, batch, 0, shuffle=False, workers=workers, rank=rank, world=world):
        with fabric.autocast() if fabric else nullcontext():
            logits = model(images.to(device))
        counts += metrics.confusion(logits, labels.to(device))
    model.train(training)
    if fabric and world > 1:
        counts = fabric.all_reduce(counts, reduce_op="sum")  # type: ignore[assignment]
    return counts.cpu()


@torch.no_grad()
def pictures(model: nn.Module, frames: SegmentationDataset, count: int) -> Image:
    """`count` frames spread over the split, one row each: frame, labels, prediction, differences in red."""
    training = model.training
    model.eval()
    spec, device = frames.spec, next(model.parameters()).device
    rows = []
    for index in np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int):
        image, labels = frames[index]
        classmap = model(image[None].to(device)).argmax(1)[0].cpu().numpy().astype(np.uint8)
        pixels = (image.permute(1, 2, 0).numpy() * np.array(spec.std) + np.array(spec.mean)) * 255
        frame = pixels.round().clip(0, 255).astype(np.uint8)[..., :: -1 if spec.color == "RGB" else 1]
        rows.append(strip(frame, labels.numpy().astype(np.uint8), classmap, spec.palette))
    model.train(training)
    return np.vstack(rows)
