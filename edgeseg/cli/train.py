"""train, distill, prune, qat, export: the stages of a recipe one at a time; `edgeseg pipeline` runs them all."""

from __future__ import annotations

import json
import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.common import console, size
from edgeseg.errors import OptionError
from edgeseg.recipe import Recipe

app = typer.Typer()

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a TOML file.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the checkpoint, its metrics and the resume state.")]
Data = Annotated[Path | None, typer.Option("--data", help="Dataset to use instead of the recipe's.")]
Checkpoint = Annotated[Path, typer.Option(help="Checkpoint to start from.", show_default=False)]


class Name(str, Enum):
    teacher = "teacher"
    student = "student"


Role = Annotated[Name, typer.Option("--role", help="Which net of the recipe.", show_default=False)]


@app.command()
def train(recipe: RecipeFile, role: Role, out: Out, data: Data = None) -> None:
    """Train the teacher or the student of a recipe on labels alone. Run again after Ctrl-C, it resumes."""
    loaded = Recipe.load(recipe)
    root = _dataset(loaded, recipe, data)
    from edgeseg.training import stages

    stage = stages.train_teacher if role is Name.teacher else stages.train_student
    _done(stage(loaded, root, out))


@app.command()
def distill(recipe: RecipeFile, teacher: Checkpoint, out: Out, data: Data = None) -> None:
    """Train the student of a recipe on labels and a teacher's answers."""
    loaded = Recipe.load(recipe)
    root = _dataset(loaded, recipe, data)
    from edgeseg.training import stages

    _done(stages.distill_student(loaded, teacher, root, out))


@app.command()
def prune(recipe: RecipeFile, student: Checkpoint, teacher: Checkpoint, out: Out, data: Data = None) -> None:
    """Remove whole channels from a student down to the recipe's share of MACs or latency, and fine-tune it."""
    loaded = Recipe.load(recipe)
    root = _dataset(loaded, recipe, data)
    from edgeseg.training import stages

    _done(stages.prune_student(loaded, student, teacher, root, out))


@app.command()
def qat(recipe: RecipeFile, student: Checkpoint, teacher: Checkpoint, out: Out, data: Data = None) -> None:
    """Train a student on with INT8's rounding inside and the teacher; compile -p int8 takes what it writes."""
    loaded = Recipe.load(recipe)
    root = _dataset(loaded, recipe, data)
    from edgeseg.training import stages

    _done(stages.qat_student(loaded, student, teacher, root, out))


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint (.pt).", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    kind: Annotated[str, typer.Option("--format", "-f", help="pth, torchscript, onnx, openvino or tflite.")] = "onnx",
    input_size: Annotated[str, typer.Option("--size", help="Input WIDTHxHEIGHT [default: what it trained on].")] = "",
) -> None:
    """Write a checkpoint as a float model with its Spec inside; ONNX is what `edgeseg compile` takes."""
    from edgeseg.training.export import export as write

    asked = size(input_size) if input_size else None
    console.print(f"Wrote {write(checkpoint, out, kind, asked)}", highlight=False)


def _dataset(recipe: Recipe, file: Path, data: Path | None) -> Path:
    if data is None and not recipe.data.root:
        raise OptionError(
            f"Recipe {file} renders its own frames, so there is no folder to train on yet.",
            "Name one made by `edgeseg synth` with --data DIR, or run every stage: edgeseg pipeline.",
        )
    return data or recipe.resolve(recipe.data.root)


def _done(path: Path) -> None:
    if os.environ.get("RANK", "0") != "0":  # torchrun starts several of us, the first one speaks
        return
    metrics = json.loads(path.with_suffix(".json").read_text())
    console.print(
        f"Wrote {path}: val mIoU {100 * metrics['val_miou']:.1f} %, {metrics['macs'] / 1e9:.2f} GMACs, "
        f"{metrics['params'] / 1e6:.2f} M parameters, {metrics['seconds']:.0f} s.",
        highlight=False,
    )
    if isinstance(timed := metrics.get("latency"), dict):
        console.print(
            f"On {timed['target']} in {timed['precision']} it takes {timed['ms']:.3g} ms, {100 * timed['share']:.0f} % "
            f"of the {timed['parent_ms']:.3g} ms of the net it was cut from.",
            highlight=False,
        )
