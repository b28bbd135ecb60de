"""Recipes: defaults, and an error for every kind of mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeseg.errors import FileError, OptionError
from edgeseg.recipe import Recipe

GOOD = {"name": "street", "data": {"root": "frames", "size": [64, 96]}}
MODELS = Path(__file__).parents[1] / "models"


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def changed(**sections: object) -> dict[str, object]:
    return {**GOOD, **sections}


def test_defaults_are_filled_in_and_distillation_follows_the_student() -> None:
    recipe = Recipe.from_dict(changed(student={"epochs": 7, "lr": 1e-3}), Path("models/x/recipe.toml"))
    assert (recipe.distill.epochs, recipe.distill.lr) == (7, 1e-3)
    assert recipe.teacher.arch == "lite" and recipe.teacher.net.width == 1.0
    assert recipe.resolve("frames") == Path("models/x/frames")


def test_an_integer_is_accepted_as_a_number() -> None:
    width = Recipe.from_dict(changed(student={"width": 2}), Path("r.toml")).student.width
    assert width == 2.0 and isinstance(width, float)


@pytest.mark.parametrize("data", [GOOD["data"], {"synthetic": {"train": 3}, "size": [32, 32]}])
def test_the_resolved_recipe_survives_json(data: dict[str, object]) -> None:
    recipe = Recipe.from_dict(changed(data=data), Path("r.toml"))
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())), Path("r.toml"))
    assert again == recipe


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/recipe.toml")), ids=lambda p: p.parent.name)
def test_the_recipes_of_this_repository_load(path: Path) -> None:
    assert Recipe.load(path).name == path.parent.name


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (changed(sed=1), r"r\.toml: Unknown key 'sed'\.\nDid you mean 'seed'\?"),
        (changed(studnet={}), r"Unknown section 'studnet'\.\nDid you mean 'student'\?"),
        (changed(student={"epoch": 3}), r"Unknown key 'student\.epoch'\.\nDid you mean 'student\.epochs'\?"),
        (changed(data={"synthetic": {"tran": 1}, "size": [32, 32]}), r"'data\.synthetic\.train'\?"),
        (changed(student=3), r"student is 3\.\nExpected a section \[student\]"),
        (changed(student={"epochs": 2.5}), r"student\.epochs is 2\.5\.\nExpected a whole number"),
        (changed(student={"epochs": True}), r"student\.epochs is True\.\nExpected a whole number"),
        (changed(student={"flip": 1}), r"student\.flip is 1\.\nExpected a boolean"),
        (changed(student={"lr": "fast"}), r"student\.lr is 'fast'\.\nExpected a number"),
        (changed(student={"lr": 0}), r"student\.lr is 0, out of range\.\nExpected 1e-07 to 10"),
        (changed(student={"lr": float("nan")}), r"student\.lr is nan, out of range"),
        (changed(student={"scale": [1.0]}), r"student\.scale is \[1\.0\]\.\nExpected a list of 2 numbers"),
        (changed(student={"scale": [2.0, 1.0]}), r"student\.scale is \[2\.0, 1\.0\]\.\nExpected \[smallest, largest\]"),
        (changed(student={"optimizer": "adam"}), r"student\.optimizer is 'adam'\.\nExpected 'adamw' or 'sgd'"),
        (
            changed(student={"schedule": "flat"}),
            r"student\.schedule is 'flat'\.\nExpected 'cosine' or 'poly' or 'step'",
        ),
        (
            changed(student={"precision": "int8"}),
            r"student\.precision is 'int8'\.\nExpected 'fp32' or 'bf16' or 'fp16'",
        ),
        (changed(student={"accumulate": 9}), r"student\.accumulate is 9\.\nExpected at most the batch, 8"),
        (changed(teacher={"ce": 0}), r"teacher\.ce is 0\.0\.\nExpected a loss: at least one of ce, dice, iou"),
        (changed(teacher={"focal_gamma": -1}), r"teacher\.focal_gamma is -1, out of range"),
        (changed(teacher={"tversky_beta": 1.5}), r"teacher\.tversky_beta is 1\.5, out of range"),
        (changed(student={"class_weights": [1, -1]}), r"student\.class_weights is -1, out of range"),
        (
            changed(machine={"device": "gpu"}),
            r"machine\.device is 'gpu'\.\nExpected 'auto' or 'cpu' or 'cuda' or 'mps'",
        ),
        (changed(machine={"track": "wandb"}), r"machine\.track is 'wandb'\.\nExpected '' or 'tensorboard' or 'mlflow'"),
        (changed(prune={"macs": 1.5}), r"prune\.macs is 1\.5, out of range\.\nExpected 0\.05 to 1"),
        (changed(targets={"compile": "openvino-cpu:int8"}), r"targets\.compile is .*\nExpected a list of any number"),
        (changed(targets={"compile": ["openvino-cpu"]}), r"targets\.compile is 'openvino-cpu'\.\nExpected TARGET:PREC"),
        (changed(data={"root": "a"}), r"data\.size is missing"),
        (changed(data={"root": "a", "size": [60, 96]}), r"data\.size is \[60, 96\]\.\nExpected multiples of 32"),
        (changed(data={"size": [64, 96]}), r"\[data\] has neither root nor synthetic"),
        (changed(data={"root": "a", "synthetic": {}, "size": [64, 96]}), r"\[data\] has both root and synthetic"),
        (changed(name="a/b"), r"name is 'a/b'\.\nExpected letters"),
        ({"data": GOOD["data"]}, r"name is missing\.\nExpected at least: name, data"),
        ({"name": "x"}, r"data is missing"),
    ],
)
def test_an_error_names_the_file_the_key_and_what_was_expected(table: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Recipe.from_dict(table, Path("r.toml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"name = \n", r"is not valid TOML: .*line 1.*\.\nFix that line"),
        (b'name = "\xff"', "is not valid TOML"),
        (b"#" * (1 << 20) + b"#", "larger than"),
    ],
)
def test_an_unreadable_file_is_an_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileError, match=message):
        Recipe.load(path)


def test_a_folder_is_not_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is a folder"):
        Recipe.load(tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
SECTIONS = ["name", "data", "teacher", "student", "distill", "prune", "quantize", "targets", "machine", "seed"]
KEYS = [
    "size",
    "synthetic",
    "root",
    "epochs",
    "lr",
    "scale",
    "compile",
    "flip",
    "width",
    "arch",
    "class_weights",
    "track",
]


@given(st.sampled_from(SECTIONS), st.sampled_from(KEYS), VALUES)
def test_any_value_of_any_key_loads_or_is_rejected_by_name(section: str, key: str, value: object) -> None:
    for table in (changed(**{section: value}), changed(**{section: {key: value}})):
        try:
            recipe = Recipe.from_dict(table, Path("r.toml"))
        except OptionError as error:
            assert "r.toml: " in error.what and error.hint
        else:
            assert Recipe.from_dict(recipe.to_dict(), Path("r.toml")) == recipe


def test_neither_recipes_nor_their_commands_import_torch() -> None:
    """A recipe is read on machines that never train."""
    code = "import sys, edgeseg.recipe, edgeseg.cli.train; print('torch' in sys.modules)"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == "False"
