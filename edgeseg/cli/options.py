"""Arguments and options that several verbs have, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def complete_targets(incomplete: str) -> list[str]:
    from edgeseg.target import names

    return [name for name in names() if name.startswith(incomplete)]


def complete_precisions(incomplete: str) -> list[str]:
    from edgeseg.precision import Precision

    return [p.value for p in Precision if p.value.startswith(incomplete)]


def complete_recipes(incomplete: str) -> list[str]:
    """Recipes below the working folder, its runs and environments left out."""
    recipes = [*Path().glob("*.toml"), *Path().glob("*/*.toml"), *Path().glob("*/*/*.toml")]
    return [str(path) for path in recipes if str(path).startswith(incomplete) and not path.parts[0].startswith(".")]


PRECISIONS = "fp32, fp16, bf16, dynamic, int8 or int8-bf16"
COMPILE, COMPRESS, RUN, MEASURE = "Compile", "Compress", "Run", "Measure"
VERIFY, TRAIN, DATA = "Verify and gate", "Train", "Data"  # panels of the help

Slices = Annotated[
    Path | None, typer.Option(help="TOML: parts to measure by themselves, by names or by columns of a table.")
]
JSON_OPTION = typer.Option("--json", metavar="FILE", help="Write the result as JSON to this file, or - for stdout.")

Model = Annotated[
    Path,
    typer.Argument(
        help="ONNX segmentation model, a checkpoint (.pt) of edgeseg, a Hugging Face folder, or TorchScript.",
        show_default=False,
    ),
]
Bundle = Annotated[Path, typer.Argument(help="Folder of the bundle.", show_default=False)]
RecipeFile = Annotated[Path, typer.Argument(help="Recipe (TOML).", show_default=False, autocompletion=complete_recipes)]
Target = Annotated[
    str,
    typer.Option("--target", "-t", help="Device profile; edgeseg targets lists them.", autocompletion=complete_targets),
]
Precision = Annotated[str, typer.Option("--precision", "-p", help=f"{PRECISIONS}.", autocompletion=complete_precisions)]
Json = Annotated[str | None, JSON_OPTION]
BundleName = Annotated[
    str | None, typer.Option(metavar="NAME", help="With a key: refuse a bundle that was not signed under this name.")
]
MinVersion = Annotated[
    int | None, typer.Option(metavar="N", help="With a key: refuse a bundle that was signed as an older version.")
]

CALIBRATION_HELP = "Calibration frames for INT8: a folder of images, a dataset, or a manifest of edgeseg calibrate."
Calibration = Annotated[Path, typer.Option(help=CALIBRATION_HELP, show_default=False)]
OptionalCalibration = Annotated[Path | None, typer.Option(help=CALIBRATION_HELP)]
CalibrationFrames = Annotated[int, typer.Option("--calibration-frames", help="How many of them to use.", min=8)]
Ranges = Annotated[
    str,
    typer.Option(
        help="INT8: how activation ranges are estimated: minmax, mean, percentile, mse, entropy; auto measures."
    ),
]
Bias = Annotated[bool, typer.Option("--bias/--no-bias", help="INT8: correct biases for the rounding of weights.")]
Equalize = Annotated[bool, typer.Option(help="INT8: equalize channel ranges between layers first.")]

SpecFile = Annotated[
    Path | None,
    typer.Option("--spec", help="Spec (TOML) for what the model file lacks: classes, mean, std, ..."),
]
InputSize = Annotated[str | None, typer.Option("--size", metavar="WxH", help="Input size of the network.")]
Output = Annotated[str, typer.Option(help="Name of the output to use, if the model has several.")]

Reuse = Annotated[
    str | None,
    typer.Option(
        metavar="K|auto",
        help="Only every K-th frame goes through the network, the others move its class map along; "
        "auto: as few as --max-drop allows.",
    ),
]
MaxDrop = Annotated[
    float | None, typer.Option(metavar="POINTS", help="With --reuse auto: mIoU that may be lost; 1 by default.")
]
Stabilize = Annotated[bool, typer.Option("--stabilize", help="Keep classes from flickering: average along the motion.")]

MinConfidence = Annotated[
    float | None, typer.Option(help="Mark results as undecided whose confidence is below this, 0 to 1.")
]
ReviewClass = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CLASS[:CONFIDENCE]",
        help="Mark results with this class as undecided, or only those that are less sure of it; repeatable.",
    ),
]

Data = Annotated[
    Path, typer.Option("--data", help="Labeled dataset: ROOT/{train,val,test}/{images,masks}.", show_default=False)
]
OptionalData = Annotated[Path | None, typer.Option("--data", help="Labeled dataset to measure accuracy on.")]
Split = Annotated[str, typer.Option(help="Split of --data: train, val or test.")]
SearchSplit = Annotated[str, typer.Option(help="Split of --data to choose by; report on another one.")]
Tile = Annotated[
    bool,
    typer.Option("--tile", help="Segment frames at their own resolution, in overlapping tiles of the input's size."),
]
TileOverlap = Annotated[
    int | None,
    typer.Option("--overlap", min=0, help="With --tile: pixels that tiles share [default: an eighth of a tile]."),
]
TileBlend = Annotated[
    str, typer.Option("--blend", help="With --tile: where tiles overlap, gaussian averages, hard takes the nearer one.")
]
