"""The training loop: supervised training, distillation and fine-tuning differ only in what is passed in."""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path

import torch
from torch import nn

from edgeseg.errors import OptionError
from edgeseg.images import write_image
from edgeseg.recipe import Distill, Machine, NetConfig, Settings
from edgeseg.results.stage import EpochResult
from edgeseg.training import devices, metrics, nets, teacher_cache
from edgeseg.training.hugging_face_nets import LogQueries
from edgeseg.training.label_check import check_labels
from edgeseg.training.loader import SegmentationDataset, steps
from edgeseg.training.objectives.losses import IGNORE
from edgeseg.training.objectives.objective import Objective
from edgeseg.training.progress import EpochProgress
from edgeseg.training.run_identity import run_identity
from edgeseg.training.torch_errors import translated_errors
from edgeseg.training.tracking import Tracker, tracker
from edgeseg.training.training_state import TrainingState
from edgeseg.training.validation import evaluate, pictures

log = logging.getLogger(__name__)


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
) -> list[EpochResult]:
    """Train `model` in place; one EpochResult per epoch.

    FOLDER/last.pt is written after every epoch, and within long ones every `save_minutes`. The same call on the same
    data resumes from it, and on the CPU ends bit for bit where an uninterrupted run ends; anything else starts anew.
    FOLDER/best.pt is the checkpoint (of `net`) with the highest val mIoU. The last epoch is the result: the learning
    rate has come down to 0 by then, so nothing is selected on `val`; only with `patience` it is the best one.
    FOLDER/pictures/ shows a few val frames of every epoch.

    Under torchrun every process calls this; each works on its share of every batch, the main one writes. Raises
    EdgesegError when the loss is not finite, memory runs out, a file cannot be written or the labels teach nothing.
    """
    check_labels(train, val)
    if settings.matching and not isinstance(model, LogQueries):
        raise OptionError(
            f"matching = {settings.matching:g} for a net without queries.",
            "Set it to 0, or choose eomt, mask2former or maskformer.",
        )
    torch.manual_seed(seed)
    identity = run_identity(model, train, val, settings, seed, teacher, distill)
    fabric = devices.connect(machine.device, settings.precision, machine.nodes)
    if settings.batch % fabric.world_size:
        raise OptionError(
            f"A batch of {settings.batch} cannot be shared by {fabric.world_size} processes.",
            f"Set batch in the recipe to a multiple of {fabric.world_size}.",
        )
    state = TrainingState(fabric, model, settings, steps(train, settings.batch), folder, identity, machine.save_minutes)
    state.resume()
    if teacher is not None:
        nets.channels_last(fabric.to_device(teacher.eval()))
    objective = Objective(settings, len(train.spec.classes), teacher, distill, fabric.autocast)
    main = devices.is_main_process()
    if main and not state.is_finished():
        log.info(
            "%s: %d training and %d validation frames, %d epochs of %d steps on %s",
            *(title, len(train), len(val), settings.epochs, state.steps_per_epoch, fabric.device),
        )
    board = tracker(machine.track, folder, title, dataclasses.asdict(settings)) if main else Tracker()
    with board, EpochProgress(title, settings.epochs, state.steps_per_epoch, state.steps_done) as progress:
        if teacher is not None and distill and distill.cache and not state.is_finished():
            cache = folder.parent / "teacher-cache"
            train.teacher_cache = teacher_cache.fill(teacher, train, cache, fabric, progress.caching)
        while not state.is_finished():
            result = _train_epoch(state, objective, train, val, machine.workers, progress)
            if main and machine.pictures:
                path = folder / "pictures" / f"{result.epoch:03}.jpg"
                write_image(path, pictures(state.average, val, machine.pictures))
            state.finish_epoch(result, net, val.spec)
            board.log_epoch(result)
            progress.epoch(result)
    model.cpu().load_state_dict(state.trained_weights())
    model.eval()
    return state.history


def _train_epoch(
    state: TrainingState,
    objective: Objective,
    train: SegmentationDataset,
    val: SegmentationDataset,
    workers: int,
    progress: EpochProgress,
) -> EpochResult:
    """All steps that are left of one epoch, then validation."""
    begin, epoch = time.perf_counter() - state.seconds, state.epoch + 1
    with translated_errors(state.settings, f"stopped in epoch {epoch}, {state.what_is_saved()}"):
        for images, labels, *cached in state.batches(train, workers):
            state.loss += state.step(objective, images, labels, *cached)
            state.unlabeled += bool((labels == IGNORE).all())
            state.seconds = time.perf_counter() - begin
            state.save_within_epoch()
            progress.step()
        counts = evaluate(state.average, val, state.settings.batch, state.fabric, workers)
    if state.unlabeled:
        log.warning("Epoch %d: %d batches had no labeled pixel and were of no use.", epoch, state.unlabeled)
    return EpochResult(
        epoch=epoch,
        loss=state.loss / state.steps_per_epoch,
        val_miou=metrics.mean_iou(counts),
        val_accuracy=metrics.pixel_accuracy(counts),
        lr=state.learning_rate(),
        seconds=time.perf_counter() - begin,
    )
