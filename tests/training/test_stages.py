"""The stages one after another on a tiny dataset, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from training_helpers import SPEC, recipe

from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.files import write_bytes
from edgeseg.recipe import NetConfig, Recipe
from edgeseg.training import checkpoint, nets, stages
from edgeseg.training.complexity import macs_params


def test_from_teacher_to_onnx(root: Path, tmp_path: Path, tiny_recipe: Recipe) -> None:
    teacher = stages.train_teacher(tiny_recipe, root, tmp_path)
    student = stages.train_student(tiny_recipe, root, tmp_path)
    distilled = stages.distill_student(tiny_recipe, teacher, root, tmp_path)
    pruned = stages.prune_student(tiny_recipe, distilled, teacher, root, tmp_path)
    onnx = stages.export_onnx(pruned, tmp_path / "tiny.onnx")
    assert onnx.is_file()
    reports = {}
    for path in (teacher, student, distilled, pruned):
        model, _, spec, extra = checkpoint.load(path)
        report = reports[path.stem] = json.loads(path.with_suffix(".json").read_text())
        assert spec == SPEC and Recipe.from_dict(extra["recipe"], Path("r.toml")) == tiny_recipe
        assert (report["macs"], report["params"]) == macs_params(model, (64, 96))
        assert 0 <= report["val_miou"] <= 1 and len(report["history"]) == (1 if path == pruned else 2)
    assert reports["pruned"]["macs"] <= 0.7 * reports["distilled"]["macs"]
    assert reports["student"]["macs"] == reports["distilled"]["macs"]


def test_student_and_distilled_start_from_the_same_weights(root: Path, tmp_path: Path) -> None:
    """With no weight on the teacher the two runs are the same run."""
    same = recipe(distill={"weight": 0.0})
    teacher = stages.train_teacher(same, root, tmp_path)
    alone, *_ = checkpoint.load(stages.train_student(same, root, tmp_path))
    taught, *_ = checkpoint.load(stages.distill_student(same, teacher, root, tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(alone.state_dict().values(), taught.state_dict().values()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"classes": ("ground", "box", "ball")},
            r"does not know disc; it knows the classes ground, box, ball\.\nClasses",
        ),
        ({"classes": ("a", "b", "c")}, r"does not know ground, box, disc; it knows the classes a, b, c\."),
    ],
)
def test_a_teacher_of_something_else_is_refused(
    root: Path, tmp_path: Path, tiny_recipe: Recipe, change: dict[str, object], message: str
) -> None:
    net = NetConfig(width=0.25)
    spec = dataclasses.replace(SPEC, **change)  # type: ignore[arg-type]
    path = checkpoint.save(tmp_path / "t.pt", nets.build(net, 3), net, spec)
    with pytest.raises(OptionError, match=message):
        stages.distill_student(tiny_recipe, path, root, tmp_path)


def test_a_student_of_other_classes_is_not_pruned(root: Path, tmp_path: Path, tiny_recipe: Recipe) -> None:
    net = NetConfig(width=0.25)
    teacher = checkpoint.save(tmp_path / "t.pt", nets.build(net, 3), net, SPEC)
    other = dataclasses.replace(SPEC, classes=("a", "b", "c"))
    student = checkpoint.save(tmp_path / "s.pt", nets.build(net, 3), net, other)
    with pytest.raises(OptionError, match=r"Student .* knows the classes a, b, c"):
        stages.prune_student(tiny_recipe, student, teacher, root, tmp_path)


def test_a_student_of_another_architecture_is_not_pruned(root: Path, tmp_path: Path, tiny_recipe: Recipe) -> None:
    net = NetConfig(width=0.25)
    teacher = checkpoint.save(tmp_path / "t.pt", nets.build(net, 3), net, SPEC)
    other = NetConfig("ddrnet", width=0.25)
    student = checkpoint.save(tmp_path / "s.pt", nets.build(other, 3), other, SPEC)
    with pytest.raises(
        OptionError, match=r"Student .*s\.pt is ddrnet width 0\.25, the recipe's is lite width 0\.25\.\nPass"
    ):
        stages.prune_student(tiny_recipe, student, teacher, root, tmp_path)


def test_the_best_epoch_is_reported_with_patience(root: Path, tmp_path: Path) -> None:
    with_patience = recipe(
        student={"width": 0.25, "epochs": 30, "batch": 4, "lr": 0.05, "patience": 2, "schedule": "step"}
    )
    report = json.loads(stages.train_student(with_patience, root, tmp_path).with_suffix(".json").read_text())
    mious = [row["val_miou"] for row in report["history"]]
    assert report["val_miou"] == max(mious) and len(mious) == mious.index(max(mious)) + 3


def test_encoder_weights_by_name_are_no_path(root: Path, tmp_path: Path) -> None:
    table = recipe(teacher={"arch": "lite", "encoder": "tu-resnet10t", "weights": "a9_in1k"}).to_dict()
    with pytest.raises(EdgesegError, match="weights 'a9_in1k' of tu-resnet10t could not be downloaded"):
        stages.train_teacher(Recipe.from_dict(table, tmp_path / "recipes" / "r.toml"), root, tmp_path)


def test_a_misspelt_student_is_found_before_the_teacher_is_trained(root: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Unknown architecture 'lyte'"):
        stages.train_teacher(recipe(student={"arch": "lyte"}), root, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_teacher_or_dataset(root: Path, tmp_path: Path, tiny_recipe: Recipe) -> None:
    with pytest.raises(FileError, match=r"no\.pt does not exist"):
        stages.distill_student(tiny_recipe, tmp_path / "no.pt", root, tmp_path)
    with pytest.raises(FileError, match=r"Dataset .* does not exist"):
        stages.train_student(tiny_recipe, tmp_path / "nowhere", tmp_path)


def test_encoder_weights_are_relative_to_the_recipe(root: Path, tmp_path: Path) -> None:
    table = recipe(teacher={"arch": "unet", "encoder": "resnet18", "weights": "w.safetensors"}).to_dict()
    with pytest.raises(FileError, match=r"recipes/w\.safetensors does not exist"):
        stages.train_teacher(Recipe.from_dict(table, tmp_path / "recipes" / "r.toml"), root, tmp_path)


def test_an_unlabeled_split_is_named(tmp_path: Path, tiny_recipe: Recipe) -> None:
    write_bytes(tmp_path / "val" / "images" / "a.png", b"x")
    with pytest.raises(FileError, match=r"has no split 'train'.\nIt has: val"):
        stages.train_student(tiny_recipe, tmp_path, tmp_path)


def test_training_can_start_from_a_checkpoint(root: Path, tmp_path: Path) -> None:
    first = stages.train_student(recipe(student={"width": 0.25, "epochs": 4, "batch": 4}), root, tmp_path / "first")
    again = {"width": 0.25, "epochs": 1, "batch": 4, "lr": 1e-7, "init": str(first)}
    second = stages.train_student(recipe(student=again), root, tmp_path / "second")
    (old, *_), (new, *_) = checkpoint.load(first), checkpoint.load(second)
    apart = [float((a - b).detach().abs().max()) for a, b in zip(old.parameters(), new.parameters())]
    assert 0 < max(apart) < 1e-5


@pytest.mark.parametrize(
    ("net", "classes", "message"),
    [
        (NetConfig("ddrnet", width=0.25), SPEC.classes, r"Checkpoint .* is ddrnet width 0\.25, the recipe's is lite"),
        (NetConfig(width=0.25), ("a", "b", "c"), r"Checkpoint .* knows the classes a, b, c"),
    ],
)
def test_a_start_from_something_else_is_refused(
    root: Path, tmp_path: Path, net: NetConfig, classes: tuple[str, ...], message: str
) -> None:
    spec = dataclasses.replace(SPEC, classes=classes, palette=SPEC.palette[: len(classes)])
    path = checkpoint.save(tmp_path / "c.pt", nets.build(net, len(classes)), net, spec)
    with pytest.raises(OptionError, match=message):
        stages.train_student(recipe(student={"width": 0.25, "init": str(path)}), root, tmp_path)
