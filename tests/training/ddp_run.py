"""Trainings that torchrun starts on every process: ddp_run.py DATA OUT KIND.... Each writes what it ended with."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn
from training_helpers import SPEC

from edgeseg.data.dataset import Dataset
from edgeseg.recipe import Machine, NetConfig, Settings
from edgeseg.training import devices, loop, nets
from edgeseg.training.loader import SegmentationDataset

SETTINGS = Settings(epochs=3, batch=4, lr=5e-3, stride=1, scale=(1.0, 1.0), clip=1.0, ema=0.9)


def net(kind: str) -> nn.Module:
    """`plain` has no batch statistics: sharing a batch must then change nothing but rounding."""
    torch.manual_seed(0)
    if kind == "lite":
        return nets.build(NetConfig("lite", width=0.25), 3)
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 1)
    )


def main(data: Path, out: Path, kind: str) -> None:
    torch.set_num_threads(1)
    train = SegmentationDataset(Dataset.open(data, "train"), SPEC, SETTINGS, seed=1)
    val = SegmentationDataset(Dataset.open(data, "val"), SPEC)
    model = net(kind)
    history = loop.fit(model, train, val, SETTINGS, out, seed=1, machine=Machine(device="cpu", pictures=1))
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    rows = [epoch.metrics() | {"seconds": 0.0} for epoch in history]
    torch.save(
        {"state": model.state_dict(), "history": rows, "main": devices.is_main_process()}, out / f"rank{rank}.pt"
    )


if __name__ == "__main__":
    for word in sys.argv[3:]:
        main(Path(sys.argv[1]), Path(sys.argv[2]) / word, word)
