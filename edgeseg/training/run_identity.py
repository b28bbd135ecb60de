"""The identity of a training run: whether a saved state may be resumed."""

from __future__ import annotations

import dataclasses
import hashlib
import json

from torch import nn

from edgeseg.recipe import Distill, Settings
from edgeseg.training.loader import SegmentationDataset


def run_identity(
    model: nn.Module,
    train: SegmentationDataset,
    val: SegmentationDataset,
    settings: Settings,
    seed: int,
    teacher: nn.Module | None,
    distill: Distill | None,
) -> str:
    """sha256 of everything the result of `loop.fit` depends on; a run with another identity cannot be resumed."""
    plain = [dataclasses.asdict(settings), train.spec.to_dict(), seed, train.seed]
    plain.append(dataclasses.asdict(distill) if distill else None)
    if train.shuffle_buffer:
        plain.append(train.shuffle_buffer)
    total = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for frames in (train, val):
        total.update(frames.dataset.digest().encode())
    if settings.copy_paste:
        total.update(train.dataset.instances_digest().encode())
    for net in (model, teacher):
        if net is not None:
            total.update(weights_digest(net))
    return total.hexdigest()


def weights_digest(net: nn.Module) -> bytes:
    """sha256 of the names and values of a net's parameters and buffers."""
    total = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.digest()
