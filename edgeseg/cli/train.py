"""train, distill, prune, qat, export: the training stages of a recipe, one at a time. `edgeseg pipeline` runs all."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import results, resumable, size, wrote
from edgeseg.errors import OptionError
from edgeseg.recipe import Recipe

app = typer.Typer()

Out = Annotated[
    Path, typer.Option("--out", "-o", help="Folder for the checkpoint, its metrics (JSON) and the resume state.")
]
Data = Annotated[Path | None, typer.Option("--data", help="Dataset folder to use instead of the recipe's.")]
Student = Annotated[Path, typer.Option(help="Checkpoint of the trained student to start from.", show_default=False)]
Teacher = Annotated[
    Path, typer.Option(help="Checkpoint of the teacher to distill from; it is not changed.", show_default=False)
]


class Role(str, Enum):
    teacher = "teacher"
    student = "student"


class Format(str, Enum):
    onnx = "onnx"
    pth = "pth"
    torchscript = "torchscript"
    openvino = "openvino"
    tflite = "tflite"


@app.command(
    rich_help_panel=options.TRAIN,
    epilog="Example: edgeseg train recipe.toml --role teacher --out runs/street",
)
def train(
    recipe: options.RecipeFile,
    role: Annotated[Role, typer.Option("--role", help="Net of the recipe to train.", show_default=False)],
    out: Out,
    data: Data = None,
) -> None:
    """Train the teacher or the student of a recipe on labels alone.

    For dataset owners: the first stage of a recipe, and the baseline that distillation has to beat. Interrupted runs
    resume when the same command is run again.
    """
    loaded = Recipe.load(recipe)
    root = _dataset(loaded, recipe, data)
    from edgeseg.training import stages

    stage = stages.train_teacher if role is Role.teacher else stages.train_student
    _run(lambda: stage(loaded, root, out))


@app.command(
    rich_help_panel=options.TRAIN,
    epilog="Example: edgeseg distill recipe.toml --teacher runs/street/teacher.pt --out runs/street",
)
def distill(recipe: options.RecipeFile, teacher: Teacher, out: Out, data: Data = None) -> None:
    """Train the student of a recipe on labels and the predictions of a teacher.

    For dataset owners: a small student learns more from a large teacher than from labels alone.
    """
    loaded = Recipe.load(recipe)
    root = _dataset(loaded, recipe, data)
    from edgeseg.training import stages

    _run(lambda: stages.distill_student(loaded, teacher, root, out))


@app.command(
    rich_help_panel=options.TRAIN,
    epilog="Example: edgeseg prune recipe.toml --student runs/street/distilled.pt "
    "--teacher runs/street/teacher.pt --out runs/street",
)
def prune(recipe: options.RecipeFile, student: Student, teacher: Teacher, out: Out, data: Data = None) -> None:
    """Remove channels from a trained student and fine-tune it with the teacher.

    For dataset owners: makes a net faster on every runtime. The recipe's [prune] sets the share of the MACs or of the
    latency to keep, and the epochs of fine-tuning.
    """
    loaded = Recipe.load(recipe)
    root = _dataset(loaded, recipe, data)
    from edgeseg.training import stages

    _run(lambda: stages.prune_student(loaded, student, teacher, root, out))


@app.command(
    rich_help_panel=options.TRAIN,
    epilog="Example: edgeseg qat recipe.toml --student runs/street/pruned.pt "
    "--teacher runs/street/teacher.pt --out runs/street",
)
def qat(recipe: options.RecipeFile, student: Student, teacher: Teacher, out: Out, data: Data = None) -> None:
    """Fine-tune a trained student with INT8 rounding inside (quantization-aware training).

    For dataset owners whose INT8 model loses too much accuracy after calibration. The result is compiled without
    calibration frames: edgeseg compile qat.pt --precision int8.
    """
    loaded = Recipe.load(recipe)
    root = _dataset(loaded, recipe, data)
    from edgeseg.training import stages

    _run(lambda: stages.qat_student(loaded, student, teacher, root, out))


@app.command(
    rich_help_panel=options.TRAIN,
    epilog="Example: edgeseg export runs/street/pruned.pt --out street.onnx",
)
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint (.pt) of a training stage.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    file_format: Annotated[Format, typer.Option("--format", "-f", help="Format of the file.")] = Format.onnx,
    input_size: Annotated[
        str, typer.Option("--size", help="Input size as WIDTHxHEIGHT, if not the size it was trained for.")
    ] = "",
) -> None:
    """Write a checkpoint as a float model for other tools, with its Spec inside.

    For model owners who deploy without edgeseg. `edgeseg compile` takes checkpoints and ONNX files alike.
    """
    from edgeseg.training.export import export as write

    path = write(checkpoint, out, file_format.value, size(input_size) if input_size else None)
    wrote(path)


def _dataset(recipe: Recipe, file: Path, data: Path | None) -> Path:
    if data is None and not recipe.data.root:
        raise OptionError(
            f"Recipe {file} renders its own frames, so there is no folder to train on yet.",
            "Pass a folder written by `edgeseg synth` as --data DIR, or run every stage: edgeseg pipeline.",
        )
    return data or recipe.resolve(recipe.data.root)


def _run(stage: Callable[[], Path]) -> None:
    """Run a stage and print a summary of its result."""
    with resumable():
        path = stage()
    if not _is_main_process():
        return
    from edgeseg.results.stage import PrunedLatency, StageResult

    result = StageResult.load(path.with_suffix(".json"))
    wrote(path)
    console = results()
    console.print(
        f"{path.name}: val mIoU {100 * result.val_miou:.1f} %, {result.macs / 1e9:.2f} GMACs, "
        f"{result.params / 1e6:.2f} M parameters, {result.seconds:.0f} s."
    )
    latency = result.latency
    if isinstance(latency, PrunedLatency):
        console.print(
            f"Latency on {latency.target} in {latency.precision}: {latency.ms:.3g} ms, {100 * latency.share:.0f} % of "
            f"the unpruned net's {latency.parent_ms:.3g} ms."
        )


def _is_main_process() -> bool:
    """torchrun starts several processes; only the first one reports."""
    return os.environ.get("RANK", "0") == "0"
