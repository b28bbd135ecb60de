"""The training loop: supervised training, distillation and fine-tuning differ only in what is passed in."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.evaluation.pictures import strip
from edgeseg.images import Image, write_image
from edgeseg.recipe import Distill, Machine, NetConfig, Settings
from edgeseg.training import checkpoint, devices, faults, nets, optim, teacher_cache
from edgeseg.training.loader import Sample, SegmentationDataset, batches, steps
from edgeseg.training.objectives import losses
from edgeseg.training.objectives.distillation import Lessons
from edgeseg.training.tracking import Tracker, tracker

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)
History = list[dict[str, Any]]


def fit(
    model: nn.Module,
    train: SegmentationDataset,
    val: SegmentationDataset,
    settings: Settings,
    folder: Path,
    *,
    net: NetConfig = NetConfig(),  # noqa: B008  # frozen
    seed: int = 0,
    teacher: nn.Module | None = None,
    distill: Distill | None = None,
    machine: Machine = Machine(),  # noqa: B008
    title: str = "training",
) -> History:
    """Train `model` in place; one row {epoch, loss, val_miou, val_accuracy, lr, seconds} an epoch.

    FOLDER/last.pt is written after every epoch. The same call on the same data continues from it, and on the CPU ends
    bit for bit where an uninterrupted run ends; anything else starts anew. FOLDER/best.pt is the checkpoint (of `net`)
    with the highest val mIoU. The last epoch is the result: the learning rate has come down to 0 by then, so nothing is
    selected on `val`; only with `patience` it is the best one. FOLDER/pictures/ shows a few val frames of every epoch.

    Under torchrun every process calls this; each works on its share of every batch, the first one writes. Raises
    EdgesegError when the loss is not finite, memory runs out, a file cannot be written or nothing can be learnt.
    """
    faults.inspect(train, val)
    torch.manual_seed(seed)
    identity = fingerprint(model, train, val, settings, seed, teacher, distill)
    fabric = devices.connect(machine.device, settings.precision, machine.nodes)
    if settings.batch % fabric.world_size:
        raise OptionError(
            f"A batch of {settings.batch} cannot be shared by {fabric.world_size} processes.",
            f"Set batch in the recipe to a multiple of {fabric.world_size}.",
        )
    run = _Run(fabric, model, settings, steps(train, settings.batch), folder, identity)
    run.resume()
    if teacher is not None:
        nets.channels_last(fabric.to_device(teacher.eval()))
    lessons = Lessons(settings, len(train.spec.classes), teacher, distill, fabric.autocast)
    console = Console(stderr=True)
    board = tracker(machine.track, folder, title, dataclasses.asdict(settings)) if devices.first() else Tracker()
    with board, Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=settings.epochs * run.steps, completed=run.epoch * run.steps)
        if teacher is not None and distill and distill.cache and not run.over():
            train.answers = teacher_cache.fill(
                teacher,
                train,
                folder.parent / "answers",
                fabric,
                lambda i, n: progress.update(bar, description=f"{title}: teacher's answers, frame {i} of {n}"),
            )
        while not run.over():
            begin = time.perf_counter()
            total, blank = 0.0, 0
            with faults.translated(settings, f"stopped in epoch {run.epoch + 1}, {run.kept()}"):
                for images, labels, *more in run.batches(train, machine.workers):
                    total += run.step(lessons, images, labels, *more)
                    blank += bool((labels == losses.IGNORE).all())
                    progress.advance(bar)
                counts = evaluate(run.average, val, settings.batch, fabric, machine.workers)
            if blank:
                log.warning("epoch %d: %d batches had no labeled pixel and taught nothing", run.epoch + 1, blank)
            miou, accuracy = losses.mean_iou(counts), losses.pixel_accuracy(counts)
            row = {"epoch": run.epoch + 1, "loss": total / run.steps, "val_miou": miou, "val_accuracy": accuracy}
            row |= {"lr": run.lr(), "seconds": time.perf_counter() - begin}
            if devices.first() and machine.pictures:
                write_image(
                    folder / "pictures" / f"{row['epoch']:03}.jpg", pictures(run.average, val, machine.pictures)
                )
            run.finish_epoch(row, net, val)
            board.row(row)
            news = f"{title}: epoch {run.epoch} of {settings.epochs}, loss {row['loss']:.3f}"
            news += f", val mIoU {miou:.3f}, pixel accuracy {accuracy:.3f}"
            progress.update(bar, description=news)
            log.info(news)
    model.cpu().load_state_dict(run.result())
    model.eval()
    return run.history


class _Run:
    """Everything that changes during training, and its files."""

    def __init__(
        self, fabric: Fabric, model: nn.Module, settings: Settings, per_epoch: int, folder: Path, identity: str
    ):
        self.fabric, self.settings, self.steps, self.identity = fabric, settings, per_epoch, identity
        self.last, self.best = folder / "last.pt", folder / "best.pt"
        self.model = nets.channels_last(devices.shared_norms(model, fabric))
        self.average = fabric.to_device(copy.deepcopy(self.model)) if settings.ema else self.model
        self.net, self.optimizer = fabric.setup(self.model, optim.optimizer(self.model, settings))
        self.net.train()
        self.epoch, self.done = 0, 0
        self.history: History = []

    def batches(self, train: SegmentationDataset, workers: int) -> Iterator[Sample]:
        """This process's share of every batch of the epoch."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        return batches(train, self.settings.batch, self.epoch, True, workers, rank, world)

    def lr(self) -> float:
        return optim.rate(self.settings, self.done, self.settings.epochs * self.steps)

    def best_epoch(self) -> int:
        """The first with the highest val mIoU, from 1; 0 before there is any."""
        return max(self.history, key=lambda row: row["val_miou"])["epoch"] if self.history else 0

    def over(self) -> bool:
        patience = self.settings.patience
        waited = self.epoch - self.best_epoch()
        return self.epoch >= self.settings.epochs or (patience > 0 and waited >= patience)

    def step(self, lessons: Lessons, images: Tensor, *rest: Tensor) -> float:
        """One update from one batch (`rest`: labels, kept answers).

        The gradient is checked too, so that a broken one never reaches the weights.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * self.lr()
        self.optimizer.zero_grad(set_to_none=True)
        parts = list(zip(*(tensor.chunk(self.settings.accumulate) for tensor in (images, *rest))))
        value = 0.0
        for number, part in enumerate(parts, 1):
            with self.fabric.no_backward_sync(self.net, enabled=number < len(parts)):
                loss = lessons(self.net, *self.fabric.to_device(part)) * (len(part[0]) / len(images))
                self.fabric.backward(loss)
            mean: Any = self.fabric.all_reduce(loss.detach())  # over all processes
            value += float(mean)
        norm = self.fabric.clip_gradients(
            self.net, self.optimizer, max_norm=self.settings.clip or math.inf, error_if_nonfinite=False
        )
        # With fp16 a gradient may overflow: its scaler then leaves out the step and lowers the scale.
        size = 0.0 if norm is None or self.settings.precision == "fp16" else float(norm)
        if not (math.isfinite(value) and math.isfinite(size)):
            raise EdgesegError(
                f"Training stopped in epoch {self.epoch + 1}, step {self.done % self.steps + 1}: loss {value:g}, "
                f"gradient norm {size:g}; {self.kept()}.",
                "Try a lower lr, a longer warmup or a smaller clip in the recipe.",
            )
        self.optimizer.step()
        self.done += 1
        if self.average is not self.model:
            _blend(self.average, self.model, min(self.settings.ema, (1 + self.done) / (10 + self.done)))
        return value

    def kept(self) -> str:
        return f"the state after epoch {self.epoch} is kept in {self.last}" if self.epoch else "nothing was saved yet"

    def finish_epoch(self, row: dict[str, Any], net: NetConfig, val: SegmentationDataset) -> None:
        """Write last.pt, and best.pt if this epoch is the best."""
        self.history.append(row)
        if devices.first():
            try:
                if self.best_epoch() == row["epoch"]:
                    note = {"identity": self.identity, "epoch": row["epoch"], "val_miou": row["val_miou"]}
                    checkpoint.save(self.best, self.average, net, val.spec, note)
                checkpoint.write(self.last, self._state(row["epoch"]))
            except FileError as error:
                raise FileError(
                    f"{error.what} Training stopped after epoch {row['epoch']}; {self.kept()}.",
                    "Make room there and run again: it continues from the kept state.",
                ) from error
        self.epoch = row["epoch"]
        devices.wait()

    def _state(self, epoch: int) -> dict[str, Any]:
        cuda = self.fabric.device.type == "cuda"
        return {
            "identity": self.identity,
            "epoch": epoch,
            "history": self.history,
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average is not self.model else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if cuda else None,
        }

    def resume(self) -> None:
        """Continue from `last` if it was written by this very run."""
        if not self.last.is_file():
            return
        try:
            data = checkpoint.read(self.last)
        except EdgesegError as error:
            log.warning("%s Starting from the first epoch.", error.what)
            return
        if data.get("identity") != self.identity:
            log.info("%s belongs to a run with other data or settings: starting from the first epoch.", self.last)
            return
        self.model.load_state_dict(data["model"])
        if data["average"] is not None:
            self.average.load_state_dict(data["average"])
        self.optimizer.load_state_dict(data["optimizer"])
        self.fabric.strategy.precision.load_state_dict(data["scaler"])
        torch.set_rng_state(data["random"])
        if data["random_cuda"] is not None and self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(data["random_cuda"])
        self.epoch, self.history = data["epoch"], data["history"]
        self.done = self.epoch * self.steps
        log.info("resuming after epoch %d", self.epoch)

    def result(self) -> dict[str, Tensor]:
        """The weights that the training is for."""
        if self.settings.patience and self.best_epoch() < self.epoch:
            state: dict[str, Tensor] = checkpoint.read(self.best)["state"]
            return state
        return self.average.state_dict()


@torch.no_grad()
def _blend(average: nn.Module, model: nn.Module, decay: float) -> None:
    for old, new in zip(average.state_dict().values(), model.state_dict().values()):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


@torch.no_grad()
def evaluate(
    model: nn.Module, frames: SegmentationDataset, batch: int = 8, fabric: Fabric | None = None, workers: int = 0
) -> Tensor:
    """Pixel counts [C, C] at the network's size, over all processes and in the precision of the training.

    The model is left in the mode it was in.
    """
    rank, world = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    devices.agree(model)
    training = model.training
    model.eval()
    where = next(model.parameters()).device
    classes = len(frames.spec.classes)
    counts = torch.zeros(classes, classes, dtype=torch.int64, device=where)
    for images, labels in batches(frames, batch, 0, shuffle=False, workers=workers, rank=rank, world=world):
        with fabric.autocast() if fabric else nullcontext():
            logits = model(images.to(where))
        counts += losses.confusion(logits, labels.to(where))
    model.train(training)
    if fabric and world > 1:
        counts = fabric.all_reduce(counts, reduce_op="sum")  # type: ignore[assignment]
    return counts.cpu()


@torch.no_grad()
def pictures(model: nn.Module, frames: SegmentationDataset, count: int) -> Image:
    """`count` frames spread over the split, below each other: frame, truth, prediction, differences in red."""
    training = model.training
    model.eval()
    spec, where = frames.spec, next(model.parameters()).device
    rows = []
    for index in np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int):
        image, labels = frames[index]
        classmap = model(image[None].to(where)).argmax(1)[0].cpu().numpy().astype(np.uint8)
        pixels = (image.permute(1, 2, 0).numpy() * np.array(spec.std) + np.array(spec.mean)) * 255
        frame = pixels.round().clip(0, 255).astype(np.uint8)[..., :: -1 if spec.color == "RGB" else 1]
        rows.append(strip(frame, labels.numpy().astype(np.uint8), classmap, spec.palette))
    model.train(training)
    return np.vstack(rows)


def fingerprint(
    model: nn.Module,
    train: SegmentationDataset,
    val: SegmentationDataset,
    settings: Settings,
    seed: int,
    teacher: nn.Module | None,
    distill: Distill | None,
) -> str:
    """sha256 of everything the result of `fit` depends on: a run with another one cannot be continued."""
    plain = [dataclasses.asdict(settings), train.spec.to_dict(), seed, train.seed]
    plain.append(dataclasses.asdict(distill) if distill else None)
    total = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for frames in (train, val):
        total.update(frames.dataset.digest().encode())
    for net in (model, teacher):
        for key, tensor in net.state_dict().items() if net is not None else ():
            total.update(key.encode())
            total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
