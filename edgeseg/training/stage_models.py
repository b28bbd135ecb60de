"""The nets that a stage starts from: freshly built, loaded from a checkpoint, or a frozen teacher."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from edgeseg.data.dataset import Dataset
from edgeseg.errors import OptionError
from edgeseg.recipe import NetConfig, Recipe, Role
from edgeseg.spec import Spec
from edgeseg.training import checkpoint, encoder_weights, hugging_face_folder, nets
from edgeseg.training.objectives.adapted_teacher import AdaptedTeacher


def spec_of(recipe: Recipe, dataset_root: Path) -> Spec:
    """The Spec of every model of this recipe."""
    classes = Dataset.open(dataset_root, "train").classes
    height, width = recipe.data.size
    return Spec(height, width, classes.names, classes.palette, classes.ignore_index, fit=recipe.data.fit)


def initial_model(recipe: Recipe, role: Role, spec: Spec) -> nn.Module:
    """The net of [teacher] or [student] before its first step."""
    torch.manual_seed(recipe.seed)
    net = role.net
    if role.init:
        return load_trained("Checkpoint", recipe.resolve(role.init), net, spec)[0]
    here = encoder_weights.is_file(net.weights) or recipe.resolve(net.weights).is_dir()
    weights = str(recipe.resolve(net.weights)) if net.weights and here else net.weights
    nets.check(net)
    if nets.is_pretrained(net):
        return hugging_face_folder.pretrained(weights, net.arch, spec)
    return nets.build(dataclasses.replace(net, weights=weights), len(spec.classes))


def load_teacher(path: Path, spec: Spec) -> nn.Module:
    """A frozen teacher that predicts the classes of `spec`; OptionError where it lacks one of them by name."""
    model, _, own, _ = checkpoint.load(path)
    same = (own.classes, own.color, own.mean, own.std) == (spec.classes, spec.color, spec.mean, spec.std)
    return (model if same else AdaptedTeacher(model, own, spec, path).eval()).requires_grad_(False)


def load_trained(title: str, path: Path, expected: NetConfig, spec: Spec) -> tuple[nn.Module, NetConfig]:
    """The model and net of a checkpoint; OptionError unless it is the `expected` net for the classes of `spec`.

    `title` begins the error message: Student, Checkpoint.
    """
    model, net, own, _ = checkpoint.load(path)
    if own.classes != spec.classes:
        raise OptionError(
            f"{title} {path} knows the classes {', '.join(own.classes)}.",
            f"The dataset has {', '.join(spec.classes)}: train the {title.lower()} on it.",
        )
    if dataclasses.replace(net, weights="") != dataclasses.replace(expected, weights=""):
        raise OptionError(
            f"{title} {path} is {_describe(net)}, the recipe's is {_describe(expected)}.",
            "Pass a checkpoint of the recipe's net, or change the recipe.",
        )
    if checkpoint.is_quantized(model):
        raise OptionError(
            f"{title} {path} was trained for INT8 (edgeseg qat).", "Pass the checkpoint it was trained from."
        )
    return model, net


def _describe(net: NetConfig) -> str:
    return f"{net.arch} {net.encoder} width {net.width:g}".replace("  ", " ")
