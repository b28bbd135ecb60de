"""One training loop: supervised, distillation and fine-tuning after pruning differ only in what is passed in."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.recipe import Distil, Settings
from edgeseg.training import checkpoint, losses, nets
from edgeseg.training.loader import Frames, batches, steps

log = logging.getLogger(__name__)
History = list[dict[str, Any]]


def fit(
    model: nn.Module,
    train: Frames,
    val: Frames,
    settings: Settings,
    folder: Path,
    *,
    seed: int = 0,
    teacher: nn.Module | None = None,
    distil: Distil | None = None,
    title: str = "training",
) -> History:
    """Train `model` in place; one row {epoch, loss, val_miou, lr, seconds} an epoch.

    FOLDER/last.pt is written after every epoch. The same call on the same data continues from it, and on the CPU ends
    bit for bit where an uninterrupted run ends; anything else starts anew. The last epoch is the result: the learning
    rate has come down to 0 by then, so nothing is selected on `val`. Raises EdgesegError when the loss is not finite.
    """
    torch.manual_seed(seed)
    run = _Run(model, settings, steps(train, settings.batch))
    identity = fingerprint(model, train, val, settings, seed, teacher, distil)
    last = folder / "last.pt"
    run.resume(last, identity)
    lessons = _Lessons(settings, teacher, distil)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=settings.epochs * run.steps, completed=run.epoch * run.steps)
        while run.epoch < settings.epochs:
            begin = time.perf_counter()
            total = 0.0
            for images, labels in batches(train, settings.batch, run.epoch):
                total += run.step(lessons(model, images, labels), last)
                progress.advance(bar)
            miou = evaluate(run.average, val, settings.batch)
            row = {"epoch": run.epoch + 1, "loss": total / run.steps, "val_miou": miou, "lr": run.lr()}
            run.finish_epoch({**row, "seconds": time.perf_counter() - begin}, last, identity)
            news = f"{title}: epoch {run.epoch} of {settings.epochs}, loss {row['loss']:.3f}, val mIoU {miou:.3f}"
            progress.update(bar, description=news)
            log.info(news)
    model.load_state_dict(run.average.state_dict())
    model.eval()
    return run.history


class _Lessons:
    """The loss of one batch: labels, and the teacher's logits where there is a teacher."""

    def __init__(self, settings: Settings, teacher: nn.Module | None, distil: Distil | None):
        self.settings, self.teacher, self.distil = settings, teacher, distil or Distil()
        if teacher is not None:
            nets.channels_last(teacher.eval())

    def sample(self) -> tuple[Any, ...]:
        """Every `stride`-th pixel of every such row from a random start: losses of all pixels cost more than the net,
        and neighbours say much the same."""
        stride = self.settings.stride
        top, left = torch.randint(stride, (2,)).tolist()
        return ..., slice(top, None, stride), slice(left, None, stride)

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.settings.precision == "bf16")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        pick = self.sample()
        with self.autocast():
            logits = model(images)
        logits, labels = logits[pick].float().contiguous(), labels[pick]
        loss = losses.cross_entropy(logits, labels)
        if self.teacher is not None:
            with torch.no_grad(), self.autocast():
                wanted = self.teacher(images)[pick].float().contiguous()
            weight, temperature = self.distil.weight, self.distil.temperature
            soft = losses.soft_targets(logits, wanted, labels, temperature)
            loss = (1 - weight) * loss + weight * soft
            if self.distil.channel:
                loss = loss + self.distil.channel * losses.channel_wise(logits, wanted, temperature)
        if self.settings.dice:
            loss = loss + self.settings.dice * losses.dice(logits, labels)
        return loss


class _Run:
    """Everything that changes during training, and its file."""

    def __init__(self, model: nn.Module, settings: Settings, per_epoch: int):
        self.model = nets.channels_last(model)
        self.settings, self.steps, self.epoch, self.done = settings, per_epoch, 0, 0
        self.average = copy.deepcopy(model) if settings.ema else model
        self.history: History = []
        # Weight decay on biases and batch norms only shrinks scales that the next layer restores (He et al. 2019).
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            groups.setdefault((name.startswith("encoder."), parameter.ndim > 1), []).append(parameter)
        self.shares = [settings.encoder_lr if encoder else 1.0 for encoder, _ in groups]
        decays = [settings.weight_decay if matrix else 0.0 for _, matrix in groups]
        rows: list[dict[str, Any]] = [{"params": p, "weight_decay": d} for p, d in zip(groups.values(), decays)]
        self.optimizer = torch.optim.AdamW(rows, lr=settings.lr)
        model.train()

    def lr(self) -> float:
        """Linear warm-up, then half a cosine down to 0."""
        total = self.settings.epochs * self.steps
        warm = round(self.settings.warmup * total)
        if self.done < warm:
            return self.settings.lr * (self.done + 1) / warm
        return self.settings.lr * 0.5 * (1 + math.cos(math.pi * (self.done - warm) / max(1, total - warm)))

    def step(self, loss: Tensor, last: Path) -> float:
        """One update. The gradient is checked as well, so that a broken update never reaches the weights."""
        for group, share in zip(self.optimizer.param_groups, self.shares):
            group["lr"] = share * self.lr()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip or math.inf)
        value = float(loss.detach())
        if not (math.isfinite(value) and math.isfinite(float(norm))):
            kept = f"the state after epoch {self.epoch} is kept in {last}" if self.epoch else "nothing was saved yet"
            raise EdgesegError(
                f"Training stopped in epoch {self.epoch + 1}: loss {value:g}, gradient norm {float(norm):g}; {kept}.",
                "Try a lower lr, a longer warmup or a smaller clip in the recipe.",
            )
        self.optimizer.step()
        self.done += 1
        if self.average is not self.model:
            _blend(self.average, self.model, min(self.settings.ema, (1 + self.done) / (10 + self.done)))
        return value

    def finish_epoch(self, row: dict[str, Any], last: Path, identity: str) -> None:
        self.epoch += 1
        self.history.append(row)
        checkpoint.write(
            last,
            {
                "identity": identity,
                "epoch": self.epoch,
                "history": self.history,
                "model": self.model.state_dict(),
                "average": self.average.state_dict() if self.average is not self.model else None,
                "optimizer": self.optimizer.state_dict(),
                "random": torch.get_rng_state(),
            },
        )

    def resume(self, last: Path, identity: str) -> None:
        """Continue from `last` if it was written by this very run."""
        if not last.is_file():
            return
        try:
            data = checkpoint.read(last)
        except EdgesegError as error:
            log.warning("%s Starting from the first epoch.", error.what)
            return
        if data.get("identity") != identity:
            log.info("%s belongs to a run with other data or settings: starting from the first epoch.", last)
            return
        self.model.load_state_dict(data["model"])
        if data["average"] is not None:
            self.average.load_state_dict(data["average"])
        self.optimizer.load_state_dict(data["optimizer"])
        torch.set_rng_state(data["random"])
        self.epoch, self.history = data["epoch"], data["history"]
        self.done = self.epoch * self.steps
        log.info("resuming after epoch %d", self.epoch)


@torch.no_grad()
def _blend(average: nn.Module, model: nn.Module, decay: float) -> None:
    for old, new in zip(average.state_dict().values(), model.state_dict().values()):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


@torch.no_grad()
def evaluate(model: nn.Module, frames: Frames, batch: int = 8) -> float:
    """Mean IoU (0..1) at the network's size; the model is left in the mode it was in."""
    training = model.training
    model.eval()
    classes = len(frames.spec.classes)
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    for images, labels in batches(frames, batch, 0, shuffle=False):
        counts += losses.confusion(model(images), labels)
    model.train(training)
    return losses.mean_iou(counts)


def fingerprint(
    model: nn.Module,
    train: Frames,
    val: Frames,
    settings: Settings,
    seed: int,
    teacher: nn.Module | None,
    distil: Distil | None,
) -> str:
    """sha256 of everything the result of `fit` depends on: a run with another one cannot be continued."""
    plain = [dataclasses.asdict(settings), train.spec.to_dict(), seed, train.seed]
    plain.append(dataclasses.asdict(distil) if distil else None)
    total = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for frames in (train, val):
        total.update(frames.dataset.digest().encode())
    for net in (model, teacher):
        for key, tensor in net.state_dict().items() if net is not None else ():
            total.update(key.encode())
            total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
