"""The stages of a recipe, one function each: data and checkpoints in, a checkpoint and its StageResult (JSON) out.

    train_teacher -> teacher.pt         train_student  -> student.pt
    distill_student -> distilled.pt      prune_student  -> pruned.pt
    qat_student    -> qat.pt            export_onnx    -> NAME.onnx

Beside FOLDER/NAME.pt lie FOLDER/NAME.json and FOLDER/NAME/: last.pt (for resuming), best.pt (the checkpoint with the
best val mIoU), pictures/ and what the recipe's tracker writes. Every function called again with the same inputs and
folder resumes where it stopped, or returns at once if it had finished.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch import nn

from edgeseg.data.dataset import Dataset
from edgeseg.errors import OptionError
from edgeseg.recipe import NetConfig, Recipe, Role, Settings
from edgeseg.results.stage import PrunedLatency, StageResult
from edgeseg.spec import Spec
from edgeseg.training import checkpoint, devices, nets, pruning
from edgeseg.training.complexity import macs_params
from edgeseg.training.export import export_onnx
from edgeseg.training.importance import Importance, taylor_importance
from edgeseg.training.latency_meter import LatencyMeter
from edgeseg.training.loader import SegmentationDataset
from edgeseg.training.loop import fit
from edgeseg.training.stage_models import initial_model, load_teacher, load_trained, spec_of

T = TypeVar("T")
log = logging.getLogger(__name__)

__all__ = ["distill_student", "export_onnx", "prune_student", "qat_student", "train_student", "train_teacher"]


def train_teacher(recipe: Recipe, dataset_root: Path, folder: Path) -> Path:
    """Supervised training of [teacher] -> FOLDER/teacher.pt."""
    nets.check(recipe.student.net)  # so that a typo there is reported before hours of training
    return _train_supervised(recipe, recipe.teacher, dataset_root, folder, "teacher")


def train_student(recipe: Recipe, dataset_root: Path, folder: Path) -> Path:
    """Supervised training of [student] -> FOLDER/student.pt: the baseline for distillation."""
    return _train_supervised(recipe, recipe.student, dataset_root, folder, "student")


def distill_student(recipe: Recipe, teacher_ckpt: Path, dataset_root: Path, folder: Path) -> Path:
    """Train [student] on labels and a teacher -> FOLDER/distilled.pt.

    Initial weights, order of frames and augmentation are those of train_student: only the teacher makes a difference.
    """
    spec = spec_of(recipe, dataset_root)
    teacher = load_teacher(teacher_ckpt, spec)
    settings = dataclasses.replace(recipe.student, epochs=recipe.distill.epochs, lr=recipe.distill.lr)
    model = initial_model(recipe, recipe.student, spec)
    return _train(recipe, model, recipe.student.net, spec, settings, dataset_root, folder, "distilled", teacher)


def prune_student(recipe: Recipe, student_ckpt: Path, teacher_ckpt: Path, dataset_root: Path, folder: Path) -> Path:
    """Prune a trained student to the recipe's share of MACs or latency, in rounds, each fine-tuned with the teacher
    -> FOLDER/pruned.pt.

    FOLDER/pruned/roundN.pt are the rounds before the last, FOLDER/pruned/latency.json all latencies measured. Raises
    EdgesegError where the goal cannot be reached, or the pruned net is slower than the student on the first target.
    """
    spec = spec_of(recipe, dataset_root)
    teacher = load_teacher(teacher_ckpt, spec)
    student, net = load_trained("Student", student_ckpt, recipe.student.net, spec)
    # Which process is the main one must be known before the first measurement.
    devices.connect(recipe.machine.device, recipe.student.precision, recipe.machine.nodes)
    config, rounds_folder = recipe.prune, folder / "pruned"
    epochs_per_round = config.epochs // config.rounds
    student_macs = macs_params(student, recipe.data.size)[0]
    model: nn.Module = student
    for number in range(1, config.rounds + 1):
        last = number == config.rounds
        table, progress = rounds_folder / "latency.json", number / config.rounds
        cut = partial(_prune_round, recipe, spec, student, model, progress, dataset_root, table)
        model, latency = _main_process_first(cut)
        if devices.is_main_process():
            share = macs_params(model, recipe.data.size)[0] / student_macs
            log.info("pruned: round %d of %d, cut to %.0f %% of the MACs", number, config.rounds, 100 * share)
        epochs = config.epochs - epochs_per_round * (config.rounds - 1) if last else epochs_per_round
        settings = dataclasses.replace(recipe.student, epochs=epochs, lr=config.lr)
        out, name = (folder, "pruned") if last else (rounds_folder, f"round{number}")
        path = _train(recipe, model, net, spec, settings, dataset_root, out, name, teacher, student_macs)
    if devices.is_main_process():  # not in the checkpoint: milliseconds differ between equal runs
        report = path.with_suffix(".json")
        dataclasses.replace(StageResult.load(report), latency=latency).save(report)
    return path


def _prune_round(
    recipe: Recipe,
    spec: Spec,
    student: nn.Module,
    model: nn.Module,
    progress: float,
    dataset_root: Path,
    table: Path,
) -> tuple[nn.Module, PrunedLatency | str]:
    """`model` cut to `progress` (0..1) of the way to the recipe's goal, on a logarithmic scale; and its latency beside
    the student's, or the reason why it cannot be measured on this machine."""
    config, size = recipe.prune, recipe.data.size
    meter = LatencyMeter(recipe, spec, student, table)
    importance: Importance = config.importance
    if importance == "taylor":
        train = SegmentationDataset(Dataset.open(dataset_root, "train"), spec, recipe.student, recipe.seed, cache=0)
        importance = taylor_importance(model, train, recipe.student, recipe.seed)
    if config.latency:
        meter.require_available()
        share = config.latency**progress
        model = pruning.prune_to_latency(
            model, size, share, config.round_to, importance, meter.layer_ms, student, meter.share
        )
    else:
        model = pruning.prune(model, size, config.macs**progress, config.round_to, importance, parent=student)
    if meter.unavailable_reason:
        log.warning("Whether the pruned net is faster was not measured: %s.", meter.unavailable_reason)
        return model, meter.unavailable_reason
    meter.require_no_slower(model)
    return model, meter.compare(model)


def qat_student(recipe: Recipe, student_ckpt: Path, teacher_ckpt: Path, dataset_root: Path, folder: Path) -> Path:
    """Quantization-aware training of a trained student, with the teacher -> FOLDER/qat.pt."""
    if not recipe.qat.epochs:
        raise OptionError(
            "The recipe has no epochs of quantization-aware training.", "Add to it: [qat] with epochs = 3 or more."
        )
    from edgeseg.training import qat  # needs NNCF

    spec = spec_of(recipe, dataset_root)
    teacher = load_teacher(teacher_ckpt, spec)
    student, net = load_trained("Student", student_ckpt, recipe.student.net, spec)
    frames = SegmentationDataset(Dataset.open(dataset_root, "train"), spec, cache=0)
    order = np.random.default_rng(recipe.seed).permutation(len(frames))[: recipe.quantize.frames]
    model = qat.prepare(student, [frames[int(i)][0][None] for i in order], recipe.qat.symmetric)
    settings = dataclasses.replace(recipe.student, epochs=recipe.qat.epochs, lr=recipe.qat.lr)
    return _train(recipe, model, net, spec, settings, dataset_root, folder, "qat", teacher)


def _main_process_first(work: Callable[[], T]) -> T:
    """work() in the main process, then in torchrun's others, which read from disk what the main one measured."""
    result = work() if devices.is_main_process() else None
    devices.barrier()
    return work() if result is None else result


def _train_supervised(recipe: Recipe, role: Role, dataset_root: Path, folder: Path, name: str) -> Path:
    spec = spec_of(recipe, dataset_root)
    model = initial_model(recipe, role, spec)
    return _train(recipe, model, role.net, spec, role, dataset_root, folder, name)


def _train(
    recipe: Recipe,
    model: nn.Module,
    net: NetConfig,
    spec: Spec,
    settings: Settings,
    dataset_root: Path,
    folder: Path,
    name: str,
    teacher: nn.Module | None = None,
    pruned_from_macs: int | None = None,
) -> Path:
    """Train `model` and write FOLDER/NAME.pt and FOLDER/NAME.json."""
    cache, buffer = recipe.machine.cache, recipe.data.shuffle_buffer
    opened = Dataset.open(dataset_root, "train")
    train = SegmentationDataset(opened, spec, settings, recipe.seed, cache, shuffle_buffer=buffer)
    val = SegmentationDataset(Dataset.open(dataset_root, "val"), spec, cache=cache)
    history = fit(
        model,
        train,
        val,
        settings,
        folder / name,
        net=net,
        seed=recipe.seed,
        teacher=teacher,
        distill=recipe.distill if teacher is not None else None,
        machine=recipe.machine,
        title=name,
    )
    macs, params = macs_params(model, recipe.data.size)
    miou = max(epoch.val_miou for epoch in history) if settings.patience else history[-1].val_miou
    seconds = sum(epoch.seconds for epoch in history)
    result = StageResult(
        stage=name,
        val_miou=miou,
        macs=macs,
        params=params,
        seconds=seconds,
        history=tuple(history),
        recipe=recipe.to_dict(),
        pruned_from_macs=pruned_from_macs,
    )
    path = folder / f"{name}.pt"
    if devices.is_main_process():
        checkpoint.save(path, model, net, spec, {"metrics": result.metrics(), "recipe": recipe.to_dict()})
        result.save(path.with_suffix(".json"))
        log.info("%s: finished after %d epochs, val mIoU %.3f", name, len(history), miou)
    devices.barrier()
    return path
