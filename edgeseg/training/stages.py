"""The stages of a recipe, one function each: data and checkpoints in, a checkpoint and its metrics (JSON) out.

    train_teacher -> teacher.pt         train_student  -> student.pt
    distill_student -> distilled.pt      prune_student  -> pruned.pt
    qat_student    -> qat.pt            export_onnx    -> NAME.onnx

Beside FOLDER/NAME.pt lie FOLDER/NAME.json (metrics, history) and FOLDER/NAME/: last.pt (for resuming), best.pt (the
checkpoint with the best val mIoU), pictures/ and what the recipe's tracker writes. Every function
called again with the same inputs and folder continues where it stopped, or returns at once when it had finished.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from edgeseg.data.dataset import Dataset
from edgeseg.errors import OptionError
from edgeseg.files import write_bytes
from edgeseg.recipe import Distill, NetConfig, Recipe, Role, Settings
from edgeseg.spec import Spec
from edgeseg.training import checkpoint, devices, nets, pruning
from edgeseg.training.export import export_onnx, macs_params
from edgeseg.training.importance import Importance, losses
from edgeseg.training.loader import SegmentationDataset
from edgeseg.training.loop import fit
from edgeseg.training.objectives.distillation import Teacher
from edgeseg.training.speed import Stopwatch

T = TypeVar("T")
log = logging.getLogger(__name__)

__all__ = ["distill_student", "export_onnx", "prune_student", "qat_student", "train_student", "train_teacher"]


def train_teacher(recipe: Recipe, dataset_root: Path, folder: Path) -> Path:
    """Supervised training of [teacher] -> FOLDER/teacher.pt."""
    nets.check(recipe.student.net)  # a typo there should not wait until the teacher is trained
    return _supervised(recipe, recipe.teacher, dataset_root, folder, "teacher")


def train_student(recipe: Recipe, dataset_root: Path, folder: Path) -> Path:
    """Supervised training of [student] alone -> FOLDER/student.pt: what distillation has to beat."""
    return _supervised(recipe, recipe.student, dataset_root, folder, "student")


def distill_student(recipe: Recipe, teacher_ckpt: Path, dataset_root: Path, folder: Path) -> Path:
    """[student] taught by labels and teacher -> FOLDER/distilled.pt.

    The same first weights, order of frames and augmentation as train_student, so that the teacher is the difference.
    """
    spec = spec_of(recipe, dataset_root)
    teacher = load_teacher(teacher_ckpt, spec)
    settings = dataclasses.replace(recipe.student, epochs=recipe.distill.epochs, lr=recipe.distill.lr)
    model = _fresh(recipe, recipe.student, spec)
    return _train(recipe, model, recipe.student.net, spec, settings, dataset_root, folder, "distilled", teacher)


def prune_student(recipe: Recipe, student_ckpt: Path, teacher_ckpt: Path, dataset_root: Path, folder: Path) -> Path:
    """Cut a trained student to the share that recipe.prune asks for and fine-tune it with the teacher, in rounds
    -> FOLDER/pruned.pt.

    FOLDER/pruned/roundN.pt are the rounds before the last, FOLDER/pruned/latency.json all that was timed. Raises
    EdgesegError where the goal cannot be reached, or the cut net is slower than the student on the first target.
    """
    spec = spec_of(recipe, dataset_root)
    teacher = load_teacher(teacher_ckpt, spec)
    student, net = _trained("Student", student_ckpt, recipe.student.net, spec)
    devices.connect(recipe.machine.device, recipe.student.precision, recipe.machine.nodes)  # tells who comes first
    wanted, own = recipe.prune, folder / "pruned"
    part = wanted.epochs // wanted.rounds
    model: nn.Module = student
    for number in range(1, wanted.rounds + 1):
        last = number == wanted.rounds
        cut = partial(_cut, recipe, spec, student, model, number / wanted.rounds, dataset_root, own / "latency.json")
        model, timed = _in_turn(cut)
        epochs = wanted.epochs - part * (wanted.rounds - 1) if last else part
        settings = dataclasses.replace(recipe.student, epochs=epochs, lr=wanted.lr)
        where, name = (folder, "pruned") if last else (own, f"round{number}")
        extra = {"pruned_from_macs": macs_params(student, recipe.data.size)[0]}
        path = _train(recipe, model, net, spec, settings, dataset_root, where, name, teacher, extra)
    if devices.first():  # not in the checkpoint: no two runs take the same milliseconds
        report = path.with_suffix(".json")
        write_bytes(report, json.dumps({**json.loads(report.read_text()), "latency": timed}, indent=2).encode())
    return path


def _cut(
    recipe: Recipe, spec: Spec, student: nn.Module, model: nn.Module, part: float, dataset_root: Path, table: Path
) -> tuple[nn.Module, dict[str, Any] | str]:
    """`model` cut to `part` (0..1) of the way to the recipe's goal; and its latency beside the student's, or why that
    could not be measured here."""
    wanted, size = recipe.prune, recipe.data.size
    watch = Stopwatch(recipe, spec, student, table)
    by: Importance = wanted.importance
    if by == "taylor":
        train = SegmentationDataset(Dataset.open(dataset_root, "train"), spec, recipe.student, recipe.seed, cache=0)
        by = losses(model, train, recipe.student, recipe.seed)
    if wanted.latency:
        watch.require()
        share = wanted.latency**part
        model = pruning.prune_to_latency(model, size, share, wanted.round_to, by, watch.price, student, watch.share)
    else:
        model = pruning.prune(model, size, wanted.macs**part, wanted.round_to, by, parent=student)
    if watch.why:
        log.warning("Whether the pruned net is faster was not measured: %s.", watch.why)
        return model, watch.why
    watch.require_no_slower(model)
    return model, {"target": watch.target.name, "precision": watch.precision, **watch.race(model)}


def qat_student(recipe: Recipe, student_ckpt: Path, teacher_ckpt: Path, dataset_root: Path, folder: Path) -> Path:
    """Train a trained student on with INT8's rounding inside, and the teacher -> FOLDER/qat.pt."""
    if not recipe.qat.epochs:
        raise OptionError("The recipe has no epochs with rounding.", "Add to it: [qat] with epochs = 3 or more.")
    from edgeseg.training import qat  # needs NNCF

    spec = spec_of(recipe, dataset_root)
    teacher = load_teacher(teacher_ckpt, spec)
    student, net = _trained("Student", student_ckpt, recipe.student.net, spec)
    frames = SegmentationDataset(Dataset.open(dataset_root, "train"), spec, cache=0)
    order = np.random.default_rng(recipe.seed).permutation(len(frames))[: recipe.quantize.frames]
    model = qat.prepare(student, [frames[int(i)][0][None] for i in order], recipe.qat.symmetric)
    settings = dataclasses.replace(recipe.student, epochs=recipe.qat.epochs, lr=recipe.qat.lr)
    return _train(recipe, model, net, spec, settings, dataset_root, folder, "qat", teacher)


def _in_turn(work: Callable[[], T]) -> T:
    """work() in the first process, then in the others of torchrun, which find on the disk what the first measured."""
    result = work() if devices.first() else None
    devices.wait()
    return work() if result is None else result


def spec_of(recipe: Recipe, dataset_root: Path) -> Spec:
    """The Spec of every model of this recipe."""
    classes = Dataset.open(dataset_root, "train").classes
    height, width = recipe.data.size
    return Spec(height, width, classes.names, classes.palette, classes.ignore_index)


def load_teacher(path: Path, spec: Spec) -> nn.Module:
    """A frozen teacher that answers for `spec`; OptionError where it does not know one of its classes by name."""
    model, _, own, _ = checkpoint.load(path)
    same = (own.classes, own.color, own.mean, own.std) == (spec.classes, spec.color, spec.mean, spec.std)
    return (model if same else Teacher(model, own, spec, path).eval()).requires_grad_(False)


def _same_classes(what: str, path: Path, own: Spec, spec: Spec) -> None:
    if own.classes != spec.classes:
        raise OptionError(
            f"{what} {path} knows the classes {', '.join(own.classes)}.",
            f"The dataset has {', '.join(spec.classes)}: train the {what.lower()} on it.",
        )


def _described(net: NetConfig) -> str:
    return f"{net.arch} {net.encoder} width {net.width:g}".replace("  ", " ")


def _supervised(recipe: Recipe, role: Role, dataset_root: Path, folder: Path, name: str) -> Path:
    spec = spec_of(recipe, dataset_root)
    model = _fresh(recipe, role, spec)
    return _train(recipe, model, role.net, spec, role, dataset_root, folder, name)


def _trained(what: str, path: Path, wanted: NetConfig, spec: Spec) -> tuple[nn.Module, NetConfig]:
    """The model and net of a checkpoint; OptionError unless it is the `wanted` net for the classes of `spec`."""
    model, net, own, _ = checkpoint.load(path)
    _same_classes(what, path, own, spec)
    if dataclasses.replace(net, weights="") != dataclasses.replace(wanted, weights=""):
        raise OptionError(
            f"{what} {path} is {_described(net)}, the recipe's is {_described(wanted)}.",
            "Give a checkpoint of the recipe's net, or change the recipe.",
        )
    if hasattr(model, "roundings"):
        raise OptionError(
            f"{what} {path} was trained for INT8 (edgeseg qat).", "Give the checkpoint that it was trained from."
        )
    return model, net


def _fresh(recipe: Recipe, role: Role, spec: Spec) -> nn.Module:
    """The net before its first step."""
    torch.manual_seed(recipe.seed)
    net = role.net
    if role.init:
        return _trained("Checkpoint", recipe.resolve(role.init), net, spec)[0]
    weights = str(recipe.resolve(net.weights)) if nets.is_file(net.weights) else net.weights
    return nets.build(dataclasses.replace(net, weights=weights), len(spec.classes))


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
    extra: dict[str, Any] | None = None,
) -> Path:
    cache = recipe.machine.cache
    train = SegmentationDataset(Dataset.open(dataset_root, "train"), spec, settings, recipe.seed, cache)
    val = SegmentationDataset(Dataset.open(dataset_root, "val"), spec, cache=cache)
    distill: Distill | None = recipe.distill if teacher is not None else None
    history = fit(
        model,
        train,
        val,
        settings,
        folder / name,
        net=net,
        seed=recipe.seed,
        teacher=teacher,
        distill=distill,
        machine=recipe.machine,
        title=name,
    )
    macs, params = macs_params(model, recipe.data.size)
    miou = max(row["val_miou"] for row in history) if settings.patience else history[-1]["val_miou"]
    metrics = {
        "stage": name,
        "val_miou": miou,
        "macs": macs,
        "params": params,
        **(extra or {}),
    }
    path = folder / f"{name}.pt"
    if devices.first():
        checkpoint.save(path, model, net, spec, {"metrics": metrics, "recipe": recipe.to_dict()})
        seconds = sum(row["seconds"] for row in history)  # not in the checkpoint: the same run gives the same bytes
        report = json.dumps({**metrics, "seconds": seconds, "history": history, "recipe": recipe.to_dict()}, indent=2)
        write_bytes(folder / f"{name}.json", report.encode())
    devices.wait()
    return path
