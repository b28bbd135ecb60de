"""compile, quantize, build, targets."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from edgeseg.cli.common import JSON_OPTION, console, emit, percent, size, table
from edgeseg.errors import OptionError
from edgeseg.spec import Spec

app = typer.Typer()

ModelArg = Annotated[Path, typer.Argument(help="An ONNX segmentation model, or a checkpoint (.pt) of edgeseg.")]
TargetOpt = Annotated[str, typer.Option("--target", "-t", help="Device profile; see edgeseg targets.")]
PrecisionOpt = Annotated[str, typer.Option("--precision", "-p", help="fp32, fp16, bf16, dynamic, int8 or int8-bf16.")]
OutOpt = Annotated[Path | None, typer.Option("--out", "-o", help="The bundle to write [default: MODEL-PRECISION].")]
CalibrationOpt = Annotated[
    Path | None, typer.Option(help="For INT8: a folder of images, a dataset, or a manifest of edgeseg calibrate.")
]
FramesOpt = Annotated[int, typer.Option("--calibration-frames", help="How many of them to use.", min=8)]
SpecOpt = Annotated[Path | None, typer.Option("--spec", help="Spec as TOML: height, width, classes, mean, std, ...")]
SizeOpt = Annotated[str | None, typer.Option("--size", help="Input WIDTHxHEIGHT.")]
ClassesOpt = Annotated[str | None, typer.Option(help="Class names, comma separated, or a classes.txt.")]
ColorOpt = Annotated[str | None, typer.Option(help="Channel order the network expects: RGB or BGR.")]
MeanOpt = Annotated[str | None, typer.Option(help="Three numbers on a 0..1 scale, comma separated.")]
StdOpt = Annotated[str | None, typer.Option(help="Three numbers on a 0..1 scale, comma separated.")]
RangesOpt = Annotated[
    str, typer.Option(help="INT8: ranges of activations: auto, minmax, mean, percentile, mse or entropy.")
]
BiasOpt = Annotated[bool, typer.Option("--bias/--no-bias", help="INT8: correct biases for rounded weights.")]
EqualizeOpt = Annotated[bool, typer.Option(help="INT8: first equalize the channels between layers.")]
DataOpt = Annotated[Path | None, typer.Option(help="A labeled dataset: measure the bundle on it, store the figures.")]
HeadOpt = Annotated[str | None, typer.Option(help="argmax, or threshold for one output channel.")]


@app.command()
def compile(
    model: ModelArg,
    target: TargetOpt = "openvino-cpu",
    precision: PrecisionOpt = "fp32",
    out: OutOpt = None,
    calibration: CalibrationOpt = None,
    calibration_frames: FramesOpt = 64,
    spec_file: SpecOpt = None,
    input_size: SizeOpt = None,
    classes: ClassesOpt = None,
    color: ColorOpt = None,
    mean: MeanOpt = None,
    std: StdOpt = None,
    head: HeadOpt = None,
    output: Annotated[str, typer.Option(help="Which output of the model, if it has several.")] = "",
    keep: Annotated[
        list[str] | None,
        typer.Option(help="INT8: a layer that stays float (edgeseg sensitivity lists them); repeatable."),
    ] = None,
    ranges: RangesOpt = "auto",
    bias: BiasOpt = True,
    equalize: EqualizeOpt = False,
    data: DataOpt = None,
    split: Annotated[str, typer.Option(help="Split of --data.")] = "test",
    golden: Annotated[
        str, typer.Option(help="Frames to keep for the self-test: a folder or synthetic [default: calibration's].")
    ] = "",
    dla: Annotated[int | None, typer.Option(help="Jetson: run on this DLA core, on the GPU what it cannot.")] = None,
    entropy: Annotated[bool, typer.Option(help="Jetson: INT8 by TensorRT's own calibrator, on the device.")] = False,
    json_to: Annotated[str | None, JSON_OPTION] = None,
) -> None:
    """Compile a model into a bundle for one target and precision."""
    from edgeseg.bundle import Bundle
    from edgeseg.calibration.frames import Calibration
    from edgeseg.compile import compile_model, golden_frames, spec_of
    from edgeseg.data.dataset import Dataset
    from edgeseg.recipe import PTQ
    from edgeseg.target import Target

    profile = Target.load(target)
    profile.require(precision)
    profile = profile if dla is None else profile.on_dla(dla)
    profile = profile.calibrated_on_device() if entropy else profile
    chosen = Calibration.choose(calibration, calibration_frames) if calibration else None
    flags = {"size": input_size, "classes": classes, "color": color, "mean": mean, "std": std, "head": head}
    given = {**spec_table(spec_file), **_spec_flags(flags)}
    source = as_onnx(model, size=size(input_size) if input_size else None)
    spec, assumed = spec_of(source, given, output)
    for line in assumed:
        console.print(f"[yellow]assumed[/] {line}", highlight=False)
    with console.status("compiling") as status:
        bundle: Bundle = compile_model(
            source,
            out or model.with_name(f"{model.stem}-{precision}"),
            profile,
            precision,
            spec=spec,
            frames=_parity_frames(chosen, spec),
            calibration=chosen,
            output=output,
            keep=tuple(keep or ()),
            ptq=PTQ(ranges, bias, equalize),
            dataset=Dataset.open(data, split) if data else None,
            golden=golden_frames(golden, spec),
            log=status.update,
        )
    describe(bundle)
    emit({"bundle": str(bundle.path), **bundle.manifest}, json_to)


@app.command()
def quantize(
    model: ModelArg,
    calibration: Annotated[Path, typer.Option(help="A folder of images, a dataset, or a manifest.")],
    target: TargetOpt = "openvino-cpu",
    out: OutOpt = None,
    calibration_frames: FramesOpt = 64,
    ranges: RangesOpt = "auto",
    bias: BiasOpt = True,
    equalize: EqualizeOpt = False,
    data: DataOpt = None,
    json_to: Annotated[str | None, JSON_OPTION] = None,
) -> None:
    """INT8 for one target: compile --precision int8 for a model that carries its Spec."""
    compile(
        model, target, "int8", out, calibration, calibration_frames,
        ranges=ranges, bias=bias, equalize=equalize, data=data, json_to=json_to,
    )  # fmt: skip


@app.command()
def build(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    cache: Annotated[Path | None, typer.Option(help="Where engines are kept [default: ~/.cache/edgeseg].")] = None,
    json_to: Annotated[str | None, JSON_OPTION] = None,
) -> None:
    """Build a bundle's engine on its device, ahead of the first frame, and check it with the golden frames."""
    from edgeseg import backends
    from edgeseg.bundle import Bundle

    loaded = Bundle.load(bundle)
    backend = backends.get(loaded.backend)
    if not hasattr(backend, "build"):
        raise OptionError(f"Bundle {bundle} ({loaded.target}) has no engine to build.", "It runs as it is.")
    with console.status("building") as status:
        made = backend.build(loaded, cache, status.update)
    emit({"bundle": str(bundle), **made}, json_to)
    console.print(f"[green]ok[/] {made['engine']}, golden frames agree", highlight=False)
    layers = ", ".join(f"{count} {kind}" for kind, count in sorted(made["layers"].items(), key=lambda kv: -kv[1]))
    console.print(f"layers by output: {layers or 'not told by this TensorRT'}", highlight=False)


@app.command()
def targets(json_to: Annotated[str | None, JSON_OPTION] = None) -> None:
    """List the device profiles and what can run on this machine."""
    from edgeseg import backends
    from edgeseg.target import BUILD_MODES, Target, names

    rows = [Target.load(name) for name in names()]
    reasons = {t.name: backends.missing(t) for t in rows}
    shown = table("Targets", "target", "device", "precisions", "bundle", "here")
    for row in rows:
        here = reasons[row.name] or "[green]runs[/]"
        shown.add_row(row.name, row.title, " ".join(row.precisions), BUILD_MODES[row.build_mode], here)
    console.print(shown)
    told = {
        t.name: {"title": t.title, "precisions": t.precisions, "build_mode": t.build_mode, "missing": reasons[t.name]}
        for t in rows
    }
    emit(told, json_to)


def describe(bundle: Any) -> None:
    """One paragraph about a bundle that was just made."""
    from edgeseg.target import BUILD_MODES, Target

    m = bundle.manifest
    shown = table(f"{bundle.path}", "", "")
    shown.add_row("target", f"{bundle.target} {bundle.precision}, {bundle.size / 1e6:.2f} MB")
    shown.add_row("input", f"{bundle.spec.width}x{bundle.spec.height} {bundle.spec.color}")
    shown.add_row("BatchNorm nodes", f"{m['graph']['batchnorm_before']} -> {m['graph']['batchnorm_after']}")
    for note in m["graph"]["notes"]:
        shown.add_row("graph", note)
    if ptq := m.get("ptq"):
        told = [f"ranges by {ptq['ranges']}", *(["biases corrected"] if ptq["bias"] else [])]
        shown.add_row("INT8", ", ".join([*told, *(["channels equalized"] if ptq["equalize"] else [])]))
    if kept := m.get("kept"):
        shown.add_row("in float", escape(", ".join(kept)))
    if mode := Target.load(bundle.target).build_mode:
        shown.add_row("engine", BUILD_MODES[mode])
    p = m["parity"]
    shown.add_row("agreement with parent", f"{percent(p['agreement'])} % (worst frame {percent(p['worst'])} %)")
    if metrics := m.get("metrics"):
        shown.add_row(f"mIoU on {metrics['data']} {metrics['split']}", f"{percent(metrics['miou'])}")
    console.print(shown)


def is_checkpoint(model: Path) -> bool:
    """Whether a model is a file of torch, going by its name."""
    return model.suffix in (".pt", ".pth")


def as_onnx(model: Path, folder: Path | None = None, size: tuple[int, int] | None = None) -> Path:
    """A checkpoint is exported first, into `folder` or beside itself, for its own input size or (height, width)."""
    if not is_checkpoint(model):
        return model
    from edgeseg.training.export import export_onnx

    return export_onnx(model, (folder or model.parent) / f"{model.stem}.onnx", size)


def _parity_frames(chosen: Any, spec: Spec) -> list[Any]:
    from edgeseg.compile import PARITY_FRAMES, rendered

    if chosen is not None:
        return list(islice(chosen.images(spec), PARITY_FRAMES))
    return rendered(spec, 8)


def spec_table(path: Path | None) -> dict[str, Any]:
    from edgeseg import toml

    return toml.read(path, "Spec") if path else {}


def _spec_flags(flags: dict[str, str | None]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if flags["size"]:
        given["height"], given["width"] = size(flags["size"])
    if flags["classes"]:
        given.update(_classes(flags["classes"]))
    for key in ("mean", "std"):
        if text := flags[key]:
            try:
                given[key] = tuple(float(v) for v in text.split(","))
            except ValueError:
                raise OptionError(f"--{key} {text!r} is not three numbers.", "Example: --mean 0.5,0.5,0.5") from None
    return {**given, **{key: flags[key] for key in ("color", "head") if flags[key]}}


def _classes(text: str) -> dict[str, Any]:
    try:
        listed = "," not in text and Path(text).is_file()
    except (OSError, ValueError):  # too long, or otherwise no name a file can have
        listed = False
    if listed:
        from edgeseg.data.dataset import read_classes

        found = read_classes(Path(text))
        return {"classes": found.names, "palette": found.palette, "ignore_index": found.ignore_index}
    return {"classes": tuple(name.strip() for name in text.split(","))}
