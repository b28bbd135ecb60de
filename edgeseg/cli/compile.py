"""compile, quantize, build, targets: from a model to something that runs on a device."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import emit, results, size, status, styled, table, wrote
from edgeseg.cli.models import as_onnx, find_spec, show_bundle, spec_flags, spec_table
from edgeseg.cli.probe import probe_normalization
from edgeseg.errors import OptionError
from edgeseg.precision import Precision

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.calibration.frames import CalibrationSet
    from edgeseg.images import Image
    from edgeseg.spec import Spec

log = logging.getLogger(__name__)
app = typer.Typer()

Out = Annotated[Path | None, typer.Option("--out", "-o", help="Bundle to write [default: MODEL-PRECISION].")]
Classes = Annotated[str | None, typer.Option(help="Class names, comma separated, or a classes.txt.")]
ColorOrder = Annotated[str | None, typer.Option(help="Channel order that the network expects: RGB or BGR.")]
Mean = Annotated[
    str | None, typer.Option(help="Subtracted from pixels scaled to 0..1: three numbers, comma separated.")
]
Std = Annotated[str | None, typer.Option(help="Divisor after that: three numbers, comma separated.")]
HeadKind = Annotated[str | None, typer.Option(help="argmax over classes, or threshold for one output channel.")]
Fit = Annotated[
    str | None,
    typer.Option(help="How frames of another shape fit the input: stretch, letterbox, crop or pad."),
]
Border = Annotated[
    str | None,
    typer.Option(
        help="One output channel: class 1 is above this [default: 0 for logits, 0.5 for probabilities].", metavar="X"
    ),
]
AllowLoss = Annotated[
    bool, typer.Option("--allow-loss", help="Write the bundle even if it agrees too little with its float parent.")
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(help="INT8: layer to leave unquantized (edgeseg sensitivity ranks them); repeatable."),
]
Golden = Annotated[
    str,
    typer.Option(
        help="Frames stored in the bundle for its self-test: a folder, or synthetic [default: calibration's]."
    ),
]


@app.command(
    "compile",
    rich_help_panel=options.COMPILE,
    epilog="Example: edgeseg compile model.onnx --target jetson-orin --precision int8 --calibration frames/",
)
def compile_bundle(
    model: options.Model,
    target: options.Target = "openvino-cpu",
    precision: options.Precision = "fp32",
    out: Out = None,
    calibration: options.OptionalCalibration = None,
    calibration_frames: options.CalibrationFrames = 64,
    spec_file: options.SpecFile = None,
    input_size: options.InputSize = None,
    classes: Classes = None,
    color: ColorOrder = None,
    mean: Mean = None,
    std: Std = None,
    head: HeadKind = None,
    fit: Fit = None,
    border: Border = None,
    output: options.Output = "",
    exclude: Exclude = None,
    ranges: options.Ranges = "auto",
    bias: options.Bias = True,
    equalize: options.Equalize = False,
    allow_loss: AllowLoss = False,
    data: options.OptionalData = None,
    clip: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A labeled video (DIR/images, DIR/masks): store what --reuse auto loses."),
    ] = None,
    split: options.Split = "test",
    trained_on: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="What the model was trained on: its datasheet.toml is stated in the bundle."),
    ] = None,
    golden: Golden = "",
    probe: Annotated[
        Path | None,
        typer.Option(
            metavar="FRAMES",
            help="Only try the common normalizations on these frames and show which suits; --out FILE.png draws.",
        ),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the program that a TorchScript or .pt2 file is, to make ONNX of it.")
    ] = False,
    dla: Annotated[int | None, typer.Option(help="Jetson: use this DLA core, the GPU for the rest.")] = None,
    entropy: Annotated[bool, typer.Option(help="Jetson: INT8 by TensorRT's own calibrator, on the device.")] = False,
    json_to: options.Json = None,
) -> None:
    """Compile a model into a bundle for one target and precision.

    For whoever has a trained network, of edgeseg or not. The bundle is compared with the model pixel by pixel; one that
    disagrees is not written.
    """
    from edgeseg.calibration.frames import CalibrationSet
    from edgeseg.compile import GOLDEN_FRAMES, PARITY_FRAMES, compile_model, golden_frames
    from edgeseg.data.dataset import Dataset
    from edgeseg.evaluation.clip import open_clip
    from edgeseg.recipe import PTQ
    from edgeseg.target import Target

    profile = Target.load(target)
    profile.require(precision)
    profile = profile if dla is None else profile.on_dla(dla)
    profile = profile.calibrated_on_device() if entropy else profile
    chosen = CalibrationSet.choose(calibration, calibration_frames) if calibration else None
    flags = {"size": input_size, "classes": classes, "color": color, "mean": mean, "std": std, "head": head}
    flags |= {"border": border, "fit": fit}
    overrides = {**spec_table(spec_file), **spec_flags(flags)}
    source = as_onnx(model, shape=size(input_size) if input_size else None, trusted=trust)
    if probe:
        probe_normalization(source, probe, overrides, output, out, json_to)
        return
    spec = find_spec(source, overrides, output)
    frames = _parity_frames(chosen, spec)
    with status(f"compiling {model.name} for {target}") as update:
        bundle = compile_model(
            source,
            out or model.with_name(f"{model.stem}-{precision}"),
            profile,
            precision,
            spec=spec,
            frames=frames[:PARITY_FRAMES],
            choosing=frames[PARITY_FRAMES:] if len(frames) == 2 * PARITY_FRAMES else (),
            calibration=chosen,
            output=output,
            excluded=tuple(exclude or ()),
            ptq=PTQ(ranges, bias, equalize),
            dataset=Dataset.open(data, split) if data else None,
            clip=open_clip(clip, spec) if clip else None,
            golden=golden_frames(golden, spec) or _calibration_frames(chosen, spec, GOLDEN_FRAMES),
            trained_on=trained_on,
            allow_loss=allow_loss,
            log=update,
        )
    speeds = _speeds(bundle, source, output)
    show_bundle(bundle, json_to, speeds)
    wrote(bundle.path)
    emit({"bundle": str(bundle.path), "speed_over_fp32": speeds, **bundle.manifest.to_dict()}, json_to)


@app.command(
    rich_help_panel=options.COMPILE,
    epilog="Example: edgeseg quantize model.onnx --calibration frames/",
)
def quantize(
    model: options.Model,
    calibration: options.Calibration,
    target: options.Target = "openvino-cpu",
    out: Out = None,
    calibration_frames: options.CalibrationFrames = 64,
    ranges: options.Ranges = "auto",
    bias: options.Bias = True,
    equalize: options.Equalize = False,
    allow_loss: AllowLoss = False,
    data: options.OptionalData = None,
    json_to: options.Json = None,
) -> None:
    """Compile a model in INT8: short for compile --precision int8, for a model that carries its Spec."""
    compile_bundle(
        model, target, "int8", out, calibration, calibration_frames,
        ranges=ranges, bias=bias, equalize=equalize, allow_loss=allow_loss, data=data, json_to=json_to,
    )  # fmt: skip


@app.command(
    rich_help_panel=options.COMPILE,
    epilog="Example, on a Jetson: edgeseg build street-int8",
)
def build(
    bundle: options.Bundle,
    cache: Annotated[Path | None, typer.Option(help="Folder of engines [default: engines in --cache-dir].")] = None,
    key: Annotated[Path | None, typer.Option(help="Public key: refuse a bundle that its owner did not sign.")] = None,
    json_to: options.Json = None,
) -> None:
    """Build a bundle's engine on its device, ahead of the first frame, and verify it with the golden frames.

    For operators of Jetson boards and NVIDIA GPUs: the first `edgeseg run` then starts at once.
    """
    from edgeseg import backends, signature
    from edgeseg.bundle import Bundle

    loaded = Bundle.load(bundle)
    if key:
        signature.require(loaded, signature.Required(key))
    backend = backends.get(loaded.backend)
    if not hasattr(backend, "build"):
        raise OptionError(f"Bundle {bundle} ({loaded.target}) has no engine to build.", "It runs as it is.")
    with status("building") as update:
        built = backend.build(loaded, cache, update)
    out = results(json_to)
    out.print(styled("ok", "green", f" {built.engine}, golden frames agree"))
    layers = ", ".join(f"{count} {kind}" for kind, count in sorted(built.layers.items(), key=lambda kv: -kv[1]))
    out.print(f"layers by output: {layers or 'not reported by this TensorRT'}")
    emit({"bundle": str(bundle), **vars(built)}, json_to)


@app.command(rich_help_panel=options.COMPILE, epilog="Example: edgeseg targets | grep jetson")
def targets(json_to: options.Json = None) -> None:
    """List the device profiles, their precisions, and what can run on this machine."""
    from edgeseg import backends
    from edgeseg.target import BUILD_MODES, Target, names

    rows = [Target.load(name) for name in names()]
    reasons = {t.name: backends.missing(t) for t in rows}
    shown = table("", "target", "device", "precisions", "bundle", "here")
    for row in rows:
        here = reasons[row.name] or styled("runs", "green")
        shown.add_row(row.name, row.title, " ".join(row.precisions), BUILD_MODES[row.build_mode], here)
    results(json_to).print(shown)
    emit(
        {
            t.name: {
                "title": t.title,
                "precisions": t.precisions,
                "build_mode": t.build_mode,
                "missing": reasons[t.name],
            }
            for t in rows
        },
        json_to,
    )


def _speeds(bundle: Bundle, model: Path, output: str) -> dict[Precision, float]:
    """What the precision gains here, with a warning where that is nothing; empty for fp32 and if it cannot be told."""
    from edgeseg.profiling.precisions import faster_float, speeds

    precision = bundle.precision
    if precision is Precision.FP32:
        return {}
    with status("speed of this precision"):
        found = speeds(bundle, model, output)
    other = faster_float(found, precision) if found and precision is not Precision.FP16 else None
    if other:
        log.warning(
            "%s is no faster than %s on this CPU (%.2f to %.2f times fp32)", precision, other, found[precision],
            found[other], extra={"hint": f"--precision {other} costs less accuracy; other machines may differ."},
        )  # fmt: skip
    return found


def _parity_frames(chosen: CalibrationSet | None, spec: Spec) -> list[Image]:
    from edgeseg.compile import PARITY_FRAMES, held_out, rendered

    return held_out(chosen, spec, 2 * PARITY_FRAMES) if chosen is not None else rendered(spec, 8)


def _calibration_frames(chosen: CalibrationSet | None, spec: Spec, count: int) -> list[Image]:
    return list(islice(chosen.images(spec), count)) if chosen is not None else []
