"""Images per second of training's loader from files and from shards, beside torch's plain DataLoader over the files.

    python benchmarks/loader.py DATASET [--out OUT] [--rounds 5] [--workers 1,2] [--epochs 20]

DATASET's train split is read without augmentation and without a cache of decoded frames. The arms take turns in every
round, in another order each time; CPU time is that of the process and its workers, and says more where others use the
machine, too. Then --epochs passes over the shards: memory of the process and its workers.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from edgeseg.data.dataset import Dataset
from edgeseg.data.sharding import write_shards
from edgeseg.spec import Spec
from edgeseg.training.loader import SegmentationDataset, batches

BATCH, SIZE, SHARD = 8, (352, 480), 16 << 20
Arm = Callable[[int, int], Iterable[tuple[Tensor, ...]]]  # epoch, workers


class Plain(TorchDataset[tuple[Tensor, Tensor]]):
    """What a tutorial has: read, resize, normalize."""

    def __init__(self, dataset: Dataset, spec: Spec):
        self.files = [[str(path) for path in dataset.paths(i)[:2]] for i in range(len(dataset))]
        self.size = spec.width, spec.height
        self.mean, self.std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image_file, mask_file = self.files[index]
        read = cv2.imread(image_file), cv2.imread(mask_file, cv2.IMREAD_UNCHANGED)
        assert read[0] is not None and read[1] is not None
        image = cv2.cvtColor(cv2.resize(read[0], self.size), cv2.COLOR_BGR2RGB)
        mask = cv2.resize(read[1], self.size, interpolation=cv2.INTER_NEAREST)
        scaled = (image.astype(np.float32) / 255 - self.mean) / self.std
        return torch.from_numpy(scaled.transpose(2, 0, 1).copy()), torch.from_numpy(mask).long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, metavar="DATASET")
    parser.add_argument("--out", type=Path, help="folder for the shards [default: a temporary one]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shards = options.out or Path(folder) / "shards"
        if not shards.exists():
            write_shards(options.dataset, shards, SHARD)
        arms = open_arms(options.dataset, shards)
        for workers in map(int, options.workers.split(",")):
            compare(arms, options.rounds, workers)
        watch_memory(arms["shards"], options.epochs, int(options.workers.split(",")[-1]))


def open_arms(root: Path, shards: Path) -> dict[str, Arm]:
    files, sharded = Dataset.open(root, "train"), Dataset.open(shards, "train")
    spec = Spec(*SIZE, files.classes.names, files.classes.palette, files.classes.ignore_index)
    plain = Plain(files, spec)

    def ours(dataset: Dataset, buffer: int = 0) -> Arm:
        frames = SegmentationDataset(dataset, spec, cache=0, shuffle_buffer=buffer)
        return lambda epoch, workers: batches(frames, BATCH, epoch, workers=workers)

    return {
        "plain DataLoader": lambda epoch, workers: DataLoader(
            plain, BATCH, shuffle=True, num_workers=workers, drop_last=True
        ),
        "files": ours(files),
        "shards": ours(sharded),
        "shards, buffer of 100": ours(sharded, 100),
    }


def compare(arms: dict[str, Arm], rounds: int, workers: int) -> None:
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        for name in np.roll(list(arms), number).tolist():
            started, used, images = time.perf_counter(), cpu_seconds(), 0
            for batch in arms[name](number, workers):
                images += len(batch[0])
            if number:  # the first round reads the disk
                seconds = time.perf_counter() - started
                measured[name].append((images / seconds, images / (cpu_seconds() - used)))
    plain = np.array(measured["plain DataLoader"])
    for name, found in measured.items():
        (speed, by_cpu), ratios = np.median(found, 0), np.array(found) / plain
        least, most, middle = ratios.min(0), ratios.max(0), np.median(ratios, 0)
        sys.stdout.write(
            f"{workers} workers, {name}: {speed:.0f} images/s, {middle[0]:.2f} times the plain one ({least[0]:.2f} to "
            f"{most[0]:.2f}); {1000 / by_cpu:.1f} ms of CPU an image, {middle[1]:.2f} times as many images for it "
            f"({least[1]:.2f} to {most[1]:.2f})\n"
        )
        sys.stdout.flush()


def cpu_seconds() -> float:
    """Of this process and its workers that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def watch_memory(arm: Arm, epochs: int, workers: int) -> None:
    megabytes = []
    for epoch in range(epochs):
        most = 0.0
        for number, _ in enumerate(arm(epoch, workers)):
            if number % 10 == 0:
                most = max(most, memory())
        megabytes.append(most)
    half = epochs // 2
    sys.stdout.write(
        f"memory over {epochs} epochs, {workers} workers: first {megabytes[0]:.0f} MB, mean of the first half "
        f"{np.mean(megabytes[:half]):.0f}, of the second {np.mean(megabytes[half:]):.0f}, last {megabytes[-1]:.0f}\n"
    )


def memory() -> float:
    """MB of this process and its children; pages that they share count once."""
    own = str(os.getpid())
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = (process / "stat").read_text().rsplit(")", 1)[1].split()[1]
            if own in (process.name, parent):
                rollup = (process / "smaps_rollup").read_text()
                total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        except (OSError, IndexError):
            continue  # it has ended meanwhile
    return total / 1024


if __name__ == "__main__":
    main()
