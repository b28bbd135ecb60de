"""What goes wrong while training: every case says what happened, what was saved and what to try."""

from __future__ import annotations

import logging
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training_helpers import SPEC, CalledAt, write_scenes

from edgeseg.data.dataset import Dataset
from edgeseg.errors import EdgesegError, FileError, MissingPackage, OptionError
from edgeseg.images import write_image
from edgeseg.recipe import Machine, NetConfig, Settings
from edgeseg.training import checkpoint, loop, nets
from edgeseg.training.loader import SegmentationDataset

SETTINGS = Settings(epochs=3, batch=4)
QUIET = Machine(pictures=0)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nets.build(NetConfig("lite", width=0.25), 3)


def run(root: Path, folder: Path, net: nn.Module, settings: Settings = SETTINGS, machine: Machine = QUIET) -> None:
    train = SegmentationDataset(Dataset.open(root, "train"), SPEC, settings, seed=1)
    val = SegmentationDataset(Dataset.open(root, "val"), SPEC)
    loop.fit(net, train, val, settings, folder, seed=1, machine=machine)


def ask_for_a_petabyte() -> None:
    torch.empty(2**50)


def test_out_of_memory_says_what_to_lower(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        EdgesegError,
        match=r"Out of memory with batches of 4 frames in 1 part\(s\); stopped in epoch 2, the state after epoch 1 is "
        r"in .*last\.pt\.\nRaise accumulate \(the batch in smaller parts\), or lower batch, crop or data\.size",
    ):
        run(root, tmp_path, CalledAt(ask_for_a_petabyte, model(), 3))
    assert checkpoint.read(tmp_path / "last.pt")["epoch"] == 1


def test_other_errors_of_torch_are_not_called_out_of_memory(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"expected input.* to have"):
        run(root, tmp_path, nn.Conv2d(7, 3, 1))


def test_a_full_disk_keeps_the_last_good_state(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of files, which the system enforces as it does a full disk: in the middle of a write."""
    write = checkpoint.write
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(path: Path, data: dict[str, object]) -> None:
        if path.name == "last.pt" and data["epoch"] == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, hard))
        write(path, data)

    monkeypatch.setattr(checkpoint, "write", limited)
    try:
        with pytest.raises(
            FileError,
            match=r"Cannot write .*last\.pt: .*Training stopped after epoch 2; the state after epoch 1 is in "
            r".*last\.pt\.\nFree some space and run the same command again",
        ):
            run(root, tmp_path, model())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.read(tmp_path / "last.pt")["epoch"] == 1
    assert not list(tmp_path.glob(".*.tmp")), "no half-written file stays"
    monkeypatch.undo()
    run(root, tmp_path, model())
    assert checkpoint.read(tmp_path / "last.pt")["epoch"] == 3


def relabeled(folder: Path, split: str, change: dict[int, int], frames: slice = slice(None)) -> Path:
    """A dataset in which the labels of some masks are replaced."""
    root = write_scenes(folder, {"train": 8, "val": 2})
    dataset = Dataset.open(root, split)
    for i in range(len(dataset))[frames]:
        table = np.arange(256, dtype=np.uint8)
        for old, new in change.items():
            table[old] = new
        write_image(root / split / "masks" / f"{dataset.images[i].stem}.png", table[dataset.mask(i)])
    return root


NOTHING = {0: 9, 1: 9, 2: 9}


def test_batches_without_a_label_teach_nothing_and_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = relabeled(tmp_path / "data", "train", NOTHING, slice(0, 7))
    net = model()
    with caplog.at_level(logging.WARNING):
        run(root, tmp_path / "run", net, Settings(epochs=1, batch=1, ce=1.0, dice=1.0, iou=1.0, boundary=1.0))
    assert "Epoch 1: 7 batches had no labeled pixel and were of no use" in caplog.text
    assert all(torch.isfinite(t).all() for t in net.state_dict().values())


@pytest.mark.parametrize("split", ["train", "val"])
def test_masks_that_are_all_ignore(tmp_path: Path, split: str) -> None:
    root = relabeled(tmp_path / "data", split, NOTHING)
    with pytest.raises(OptionError, match=rf"No pixel of .*/{split} is labeled: every mask is all ignore\.\nCheck"):
        run(root, tmp_path / "run", model())


def test_one_class_cannot_be_learned(tmp_path: Path) -> None:
    root = relabeled(tmp_path / "data", "train", {1: 0, 2: 9})
    with pytest.raises(OptionError, match=r"Only the class 'ground' occurs in .*/train\.\nTraining needs"):
        run(root, tmp_path / "run", model())


def test_a_class_that_never_occurs_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = relabeled(tmp_path / "data", "train", {2: 0})
    run(root, tmp_path / "run", model(), Settings(epochs=1, batch=4, dice=1.0, iou=1.0))
    assert "disc never occurs in" in caplog.text and "data import --map" in caplog.text


@pytest.mark.parametrize(
    ("settings", "machine", "message"),
    [
        (Settings(precision="fp16"), Machine(device="cpu"), r"fp16 does not train on cpu\.\nSet precision to bf16"),
        (SETTINGS, Machine(device="mps"), r"Device mps is not available\.\nSet machine\.device in the recipe to auto"),
        (SETTINGS, Machine(nodes=2), r"1 process\(es\) on 2 nodes\.\nStart torchrun on every node"),
        (Settings(class_weights=(1.0, 2.0)), QUIET, r"class_weights has 2 numbers, the dataset 3 classes\.\nGive one"),
    ],
)
def test_what_cannot_be_done_here(
    root: Path, tmp_path: Path, settings: Settings, machine: Machine, message: str
) -> None:
    if machine.device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(OptionError, match=message):
        run(root, tmp_path, model(), settings, machine)
    assert not list(tmp_path.iterdir())


def test_without_fabric(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(MissingPackage, match=r"Training needs the package lightning-fabric.*\n.*edgeseg\[train\]"):
        run(root, tmp_path, model())


def test_a_batch_of_one_where_batch_norm_needs_two(root: Path, tmp_path: Path) -> None:
    net = nets.build(NetConfig("deeplabv3plus", "tu-resnet10t"), 3)
    with pytest.raises(OptionError, match=r"A batch of one frame is too small for this net's batch norms\.\nRaise"):
        run(root, tmp_path, net, Settings(epochs=1, batch=2, accumulate=2))
