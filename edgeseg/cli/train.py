"""train, distill, prune, qat: the training stages of a recipe, one at a time (`edgeseg pipeline` runs all); export."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import results, resumable, size, wrote
from edgeseg.errors import OptionError, unknown
from edgeseg.recipe import Recipe

app = typer.Typer()
log = logging.getLogger(__name__)

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


FORMATS = ("onnx", "openvino", "pth", "tflite", "torchscript")  # of checkpoints


def _complete_formats(incomplete: str) -> list[str]:
    from edgeseg import exporters

    return [name for name in (*FORMATS, *exporters.names()) if name.startswith(incomplete)]


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
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT|BUNDLE", help="Checkpoint (.pt) of a training stage, or a bundle.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; of a bundle, the folder.")],
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="Of a checkpoint: onnx, openvino, pth, tflite, torchscript. Of a bundle: deepstream, ovms, triton.",
            autocompletion=_complete_formats,
        ),
    ] = "onnx",
    input_size: Annotated[
        str, typer.Option("--size", help="Checkpoint: input size as WIDTHxHEIGHT, if not the size it was trained for.")
    ] = "",
    name: Annotated[str, typer.Option(help="Bundle: name of the model on the server, if not the bundle's.")] = "",
) -> None:
    """Write a checkpoint as a float model for other tools, with its Spec inside, or a bundle for another server.

    For model owners who deploy without edgeseg. `edgeseg compile` takes checkpoints and ONNX files alike. A bundle's
    digests are checked first; see docs/how-to/other-servers.md for what each server gets.
    """
    from edgeseg import exporters

    if file_format in exporters.names():
        if input_size:
            raise OptionError("--size with a bundle.", "A bundle's size is fixed; compile the model with --size.")
        command = exporters.export(source, file_format, out, name)
        wrote(out)
        log.info("serve it with: %s", command)
        return
    if file_format not in FORMATS:
        raise unknown("format", file_format, (*FORMATS, *exporters.names()))
    if name or source.is_dir():
        what = f"{source} is a folder." if source.is_dir() else "--name with a checkpoint."
        raise OptionError(what, f"A bundle is exported for a server: --format {', '.join(exporters.names())}.")
    from edgeseg.training.export import export as write

    path = write(source, out, file_format, size(input_size) if input_size else None)
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
