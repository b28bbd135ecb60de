"""Training from shards is training from files, bit for bit, and goes on in the middle of an epoch after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from training_helpers import SPEC, CalledAt, recipe, write_scenes

from edgeseg.data.dataset import Dataset
from edgeseg.data.sharding import write_shards
from edgeseg.errors import OptionError
from edgeseg.recipe import Machine, NetConfig, Settings
from edgeseg.training import checkpoint, frame_order, loop, nets
from edgeseg.training.loader import SegmentationDataset, batches, steps
from edgeseg.training.preview import augmented
from edgeseg.training.stages import train_student

SETTINGS = Settings(epochs=3, batch=4, lr=2e-3, ema=0.9)
ALWAYS = 1e-9  # minutes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("many"), {"train": 30, "val": 2})


@pytest.fixture(scope="module")
def shards(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sharded") / "shards"
    write_shards(scenes, out, 1 << 16)
    assert len(list((out / "train").glob("*.tar"))) > 3
    return out


def train(
    root: Path, folder: Path, call: int = 0, buffer: int = 0, workers: int = 0, save_minutes: float = 0.0
) -> nn.Module:
    """A net trained on `root`; the process is killed in the given call of it, counted from 1."""
    torch.manual_seed(0)
    net = nn.Sequential(nets.build(NetConfig("lite", width=0.25), 3), nn.Dropout(0.1))
    model = CalledAt(lambda: os.kill(os.getpid(), signal.SIGKILL), net, call)
    frames = SegmentationDataset(Dataset.open(root, "train"), SPEC, SETTINGS, 1, cache=0, shuffle_buffer=buffer)
    val = SegmentationDataset(Dataset.open(root, "val"), SPEC)
    machine = Machine(device="cpu", pictures=0, workers=workers, save_minutes=save_minutes)
    loop.fit(model, frames, val, SETTINGS, folder, seed=1, machine=machine)
    return model


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_net_trained_from_shards_is_the_one_from_files(scenes: Path, shards: Path, tmp_path: Path) -> None:
    assert same(train(scenes, tmp_path / "files"), train(shards, tmp_path / "shards"))


def test_a_recipe_names_shards_as_its_data(shards: Path, tmp_path: Path) -> None:
    plan = recipe(data={"root": str(shards), "size": [64, 96], "shuffle_buffer": 8})
    path = train_student(plan, plan.resolve(plan.data.root), tmp_path)
    assert checkpoint.read(path) and (tmp_path / "student.json").is_file()


def test_a_preview_shows_the_frame_of_shards_that_it_shows_of_files(scenes: Path, shards: Path) -> None:
    plan = recipe(data={"root": str(shards), "size": [64, 96]}, student={"cutmix": 0.9})
    one, other = (list(augmented(Dataset.open(root, "train"), plan, plan.student, 7, 2)) for root in (scenes, shards))
    for (frame, mask), (same_frame, same_mask) in zip(one, other, strict=True):
        assert np.array_equal(frame, same_frame) and np.array_equal(mask, same_mask)


KILLED = """
import sys
from pathlib import Path
import torch
from test_train_from_shards import ALWAYS, train
torch.set_num_threads(1)
train(Path(sys.argv[1]), Path(sys.argv[2]), call=12, buffer=8, workers=int(sys.argv[3]), save_minutes=ALWAYS)
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_goes_on_within_the_epoch(
    shards: Path, tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Seven steps an epoch: killed in the fifth of the second one, after four were saved."""
    whole = train(shards, tmp_path / "whole", buffer=8)
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    command = [sys.executable, "-c", KILLED, str(shards), str(tmp_path / "parts"), str(workers)]
    ended = subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": paths})
    assert ended.returncode == -signal.SIGKILL
    saved = checkpoint.read(tmp_path / "parts" / "last.pt")
    assert (saved["epoch"], saved["steps_done"]) == (1, 11)
    with caplog.at_level("INFO"):
        resumed = train(shards, tmp_path / "parts", buffer=8, workers=workers)
    assert "Resuming after epoch 1, step 4 of 7." in caplog.text
    assert same(whole, resumed)
    history = [checkpoint.read(tmp_path / name / "last.pt")["history"] for name in ("whole", "parts")]
    assert [row["loss"] for row in history[0]] == [row["loss"] for row in history[1]]


def test_batches_from_the_middle_are_those_that_were_left(shards: Path) -> None:
    frames = SegmentationDataset(Dataset.open(shards, "train"), SPEC, SETTINGS, 1, shuffle_buffer=8)
    whole = [images for images, _ in batches(frames, 4, 2)]
    rest = [images for images, _ in batches(frames, 4, 2, start=5)]
    assert len(whole) == steps(frames, 4) == 7 and len(rest) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], rest, strict=True))
    assert not list(batches(frames, 4, 2, start=7))


class Named(SegmentationDataset):
    """Its labels are the frame's number, so that one sees who got which."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        return torch.zeros(3, 32, 32), torch.full((32, 32), index)


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 2), (3, 1)])
@pytest.mark.parametrize("buffer", [0, 8])
def test_nodes_and_workers_share_every_frame_once(shards: Path, world: int, workers: int, buffer: int) -> None:
    """30 frames: in batches of 7 or 4, of three processes, nothing divides. Validation leaves none out either."""
    frames = Named(Dataset.open(shards, "train"), SPEC, SETTINGS, 1, shuffle_buffer=buffer)
    for batch, shuffle, expected in ((7, False, 30), (7, True, 28), (1, True, 30), (30, True, 30)):
        seen: Counter[int] = Counter()
        for rank in range(world):
            for _, labels in batches(frames, batch, 1, shuffle, workers, rank, world):
                seen.update(labels[:, 0, 0].tolist())
        assert sum(seen.values()) == len(seen) == expected


@given(count=st.integers(1, 60), buffer=st.integers(1, 70), seed=st.integers(0, 9))
def test_a_shuffle_buffer_gives_every_frame_once(count: int, buffer: int, seed: int) -> None:
    mixed = list(frame_order._mixed(list(range(count)), buffer, np.random.default_rng(seed)))
    assert sorted(mixed) == list(range(count))
    assert all(frame < place + buffer for place, frame in enumerate(mixed)), "no frame comes before it is in the buffer"


def test_shards_are_read_one_after_another(shards: Path) -> None:
    dataset = Dataset.open(shards, "train")
    assert dataset.shards is not None
    orders = dataset.shards.orders()
    assert sorted(np.concatenate(orders).tolist()) == list(range(30))
    for order in orders:
        assert (np.diff(dataset.shards.spans[order, 0, 0]) > 0).all()
    first, again, other = (frame_order.shuffled(dataset, 1, epoch, 1) for epoch in (0, 0, 5))
    assert first.tolist() == again.tolist() != other.tolist()
    archives = dataset.shards.archive_of[first]
    assert (np.diff(archives) != 0).sum() == len(orders) - 1


def test_a_buffer_needs_shards(scenes: Path) -> None:
    with pytest.raises(OptionError, match=r"data.shuffle_buffer is 8, but .* is not in shards"):
        SegmentationDataset(Dataset.open(scenes, "train"), SPEC, SETTINGS, shuffle_buffer=8)


def test_masks_of_shards_are_counted_from_the_index(scenes: Path, shards: Path) -> None:
    for cache in (0.0, 1e-4, 4.0):
        one, other = (SegmentationDataset(Dataset.open(r, "train"), SPEC, cache=cache) for r in (scenes, shards))
        assert one.pixels.tolist() == other.pixels.tolist() and one.sizes.tolist() == other.sizes.tolist()
