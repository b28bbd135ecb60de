"""Everything that changes during a training run, and the files it is resumed from."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError, FileError
from edgeseg.recipe import NetConfig, Settings
from edgeseg.results.stage import EpochResult, best_epoch
from edgeseg.spec import Spec
from edgeseg.training import checkpoint, devices, nets, optim
from edgeseg.training.loader import Sample, SegmentationDataset, batches
from edgeseg.training.objectives.objective import Objective

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)


class TrainingState:
    """Model, weight average, optimizer, history and position of a run. `last` and `best` are its files in `folder`.

    `epoch`: finished ones; `steps_done`: those of the epoch that is running included. `loss`, `unlabeled`, `seconds`:
    the sum of that epoch's losses, its batches without a label, and how long it has run.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        settings: Settings,
        steps_per_epoch: int,
        folder: Path,
        identity: str,
        save_minutes: float = 0.0,
    ):
        self.fabric, self.settings, self.identity = fabric, settings, identity
        self.steps_per_epoch = steps_per_epoch
        self.last, self.best = folder / "last.pt", folder / "best.pt"
        self.model = nets.channels_last(devices.sync_batchnorms(model, fabric))
        self.average = fabric.to_device(copy.deepcopy(self.model)) if settings.ema else self.model
        self.net, self.optimizer = fabric.setup(self.model, optim.optimizer(self.model, settings))
        self.net.train()
        self.epoch, self.steps_done = 0, 0
        self.loss, self.unlabeled, self.seconds = 0.0, 0, 0.0
        self.history: list[EpochResult] = []
        self._save_seconds, self._saved_at, self._saved = 60 * save_minutes, time.monotonic(), ""

    def batches(self, train: SegmentationDataset, workers: int) -> Iterator[Sample]:
        """This process's share of every batch that is left of the epoch."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        return batches(train, self.settings.batch, self.epoch, True, workers, rank, world, self._steps_of_epoch)

    @property
    def _steps_of_epoch(self) -> int:
        return self.steps_done - self.epoch * self.steps_per_epoch

    def learning_rate(self) -> float:
        return optim.learning_rate(self.settings, self.steps_done, self.settings.epochs * self.steps_per_epoch)

    def is_finished(self) -> bool:
        """Whether all epochs are done, or `patience` ran out."""
        patience = self.settings.patience
        without_gain = self.epoch - best_epoch(self.history)
        return self.epoch >= self.settings.epochs or (patience > 0 and without_gain >= patience)

    def step(self, objective: Objective, images: Tensor, *rest: Tensor) -> float:
        """One update from one batch (`rest`: labels and, from a teacher cache, logits); the mean loss.

        EdgesegError for a loss or gradient that is not finite, before it reaches the weights.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr_scale"] * self.learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        parts = list(zip(*(tensor.chunk(self.settings.accumulate) for tensor in (images, *rest))))
        value = 0.0
        for number, part in enumerate(parts, 1):
            with self.fabric.no_backward_sync(self.net, enabled=number < len(parts)):
                loss = objective(self.net, *self.fabric.to_device(part)) * (len(part[0]) / len(images))
                self.fabric.backward(loss)
            mean: Any = self.fabric.all_reduce(loss.detach())  # over all processes
            value += float(mean)
        self._check_finite(value, self._clip_gradients())
        self.optimizer.step()
        self.steps_done += 1
        if self.average is not self.model:
            decay = min(self.settings.ema, (1 + self.steps_done) / (10 + self.steps_done))
            _update_average(self.average, self.model, decay)
        return value

    def _clip_gradients(self) -> float:
        """The norm of the gradient before clipping; 0 with fp16, whose scaler skips a step that overflows."""
        norm = self.fabric.clip_gradients(
            self.net, self.optimizer, max_norm=self.settings.clip or math.inf, error_if_nonfinite=False
        )
        return 0.0 if norm is None or self.settings.precision == "fp16" else float(norm)

    def _check_finite(self, loss: float, gradient: float) -> None:
        if math.isfinite(loss) and math.isfinite(gradient):
            return
        raise EdgesegError(
            f"Training stopped in epoch {self.epoch + 1}, step {self.steps_done % self.steps_per_epoch + 1}: "
            f"loss {loss:g}, gradient norm {gradient:g}; {self.what_is_saved()}.",
            "Try a lower lr, a longer warmup or a smaller clip in the recipe.",
        )

    def what_is_saved(self) -> str:
        return f"the state after {self._saved} is in {self.last}" if self._saved else "nothing was saved yet"

    def save_within_epoch(self) -> None:
        """Write last.pt where it is time to; the main process's state is that of all."""
        due = self._save_seconds > 0 and time.monotonic() - self._saved_at >= self._save_seconds
        if due and devices.is_main_process():
            with self._stopping():
                self._save()

    def _save(self) -> None:
        checkpoint.write(self.last, self._to_dict())
        self._saved_at, self._saved = time.monotonic(), self._position

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """Say of a file that cannot be written what there is to resume from."""
        try:
            yield
        except FileError as error:
            raise FileError(
                f"{error.what} Training stopped after {self._position}; {self.what_is_saved()}.",
                "Free some space and run the same command again: it resumes from the saved state.",
            ) from error

    @property
    def _position(self) -> str:
        done = f"epoch {self.epoch}"
        if self._steps_of_epoch == 0:
            return done
        return f"{done + ', ' if self.epoch else ''}step {self._steps_of_epoch} of {self.steps_per_epoch}"

    def finish_epoch(self, result: EpochResult, net: NetConfig, spec: Spec) -> None:
        """Append to the history; write last.pt, and best.pt if this epoch is the best."""
        self.history.append(result)
        self.epoch = result.epoch
        self.loss, self.unlabeled, self.seconds = 0.0, 0, 0.0
        if devices.is_main_process():
            with self._stopping():
                if best_epoch(self.history) == result.epoch:
                    note = {"identity": self.identity, "epoch": result.epoch, "val_miou": result.val_miou}
                    checkpoint.save(self.best, self.average, net, spec, note)
                self._save()
        devices.barrier()

    def _to_dict(self) -> dict[str, Any]:
        cuda = self.fabric.device.type == "cuda"
        return {
            "identity": self.identity,
            "epoch": self.epoch,
            "steps_done": self.steps_done,
            "loss": self.loss,
            "unlabeled": self.unlabeled,
            "seconds": self.seconds,
            "history": [dataclasses.asdict(result) for result in self.history],
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average is not self.model else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if cuda else None,
        }

    def resume(self) -> None:
        """Continue from `last` if it was written by a run with the same identity."""
        if not self.last.is_file():
            return
        try:
            data = checkpoint.read(self.last)
        except EdgesegError as error:
            log.warning("%s Starting from the first epoch.", error.what)
            return
        if data.get("identity") != self.identity or "steps_done" not in data:
            log.info("%s is from a run with other data or settings: starting from the first epoch.", self.last)
            return
        self.model.load_state_dict(data["model"])
        if data["average"] is not None:
            self.average.load_state_dict(data["average"])
        self.optimizer.load_state_dict(data["optimizer"])
        self.fabric.strategy.precision.load_state_dict(data["scaler"])
        torch.set_rng_state(data["random"])
        if data["random_cuda"] is not None and self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(data["random_cuda"])
        self.epoch, self.history = data["epoch"], [EpochResult(**row) for row in data["history"]]
        self.steps_done = data["steps_done"]
        self.loss, self.unlabeled, self.seconds = data["loss"], data["unlabeled"], data["seconds"]
        self._saved = self._position
        log.info("Resuming after %s.", self._position)

    def trained_weights(self) -> dict[str, Tensor]:
        """The result of the run: the last epoch's weights, or with `patience` the best epoch's."""
        if self.settings.patience and best_epoch(self.history) < self.epoch:
            state: dict[str, Tensor] = checkpoint.read(self.best)["state"]
            return state
        return self.average.state_dict()


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    for old, new in zip(average.state_dict().values(), model.state_dict().values()):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)
