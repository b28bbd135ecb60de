"""compile, quantize, verify, targets."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeseg.cli.common import JSON_OPTION, console, emit, percent, size, table
from edgeseg.errors import BundleError, OptionError
from edgeseg.spec import Spec

app = typer.Typer()

ModelArg = Annotated[Path, typer.Argument(help="An ONNX segmentation model, or a checkpoint (.pt) of edgeseg.")]
TargetOpt = Annotated[str, typer.Option("--target", "-t", help="Device profile; see edgeseg targets.")]
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
DataOpt = Annotated[Path | None, typer.Option(help="A labelled dataset: measure the bundle on it, store the figures.")]
HeadOpt = Annotated[str | None, typer.Option(help="argmax, or threshold for one output channel.")]


@app.command()
def compile(
    model: ModelArg,
    target: TargetOpt = "openvino-cpu",
    precision: Annotated[str, typer.Option("--precision", "-p", help="fp32, fp16, bf16 or int8.")] = "fp32",
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
    data: DataOpt = None,
    split: Annotated[str, typer.Option(help="Split of --data.")] = "test",
    json_to: Annotated[str | None, JSON_OPTION] = None,
) -> None:
    """Compile a model into a bundle for one target and precision."""
    from edgeseg.bundle import Bundle
    from edgeseg.compile import compile_model, spec_of
    from edgeseg.compression.calibration import Calibration
    from edgeseg.data.dataset import Dataset
    from edgeseg.target import Target

    profile = Target.load(target)
    profile.require(precision)
    chosen = Calibration.choose(calibration, calibration_frames) if calibration else None
    flags = {"size": input_size, "classes": classes, "color": color, "mean": mean, "std": std, "head": head}
    given = {**_spec_file(spec_file), **_spec_flags(flags)}
    source = _as_onnx(model)
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
            dataset=Dataset.open(data, split) if data else None,
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
    data: DataOpt = None,
    json_to: Annotated[str | None, JSON_OPTION] = None,
) -> None:
    """INT8 for one target: compile --precision int8 for a model that carries its Spec."""
    compile(model, target, "int8", out, calibration, calibration_frames, data=data, json_to=json_to)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    minimum: Annotated[float, typer.Option(help="Smallest agreement with a golden class map, as a share.")] = 0.99,
    json_to: Annotated[str | None, JSON_OPTION] = None,
) -> None:
    """Check a bundle's digests, then run its golden frames and compare."""
    from edgeseg.bundle import Bundle
    from edgeseg.evaluation.metrics import agreement
    from edgeseg.segmenter import Segmenter

    loaded = Bundle.load(bundle)
    with Segmenter.open(bundle) as segmenter:
        shares = [agreement(segmenter(frame).classmap, truth) for frame, truth in loaded.golden()]
    emit({"bundle": str(bundle), "files": len(loaded.manifest["files"]), "golden_agreement": shares}, json_to)
    if not shares or min(shares) < minimum:
        raise BundleError(
            f"Bundle {bundle}: a golden frame agrees on {min(shares, default=0):.2%} of pixels only.",
            f"Expected {minimum:.0%}. This machine or runtime computes something else; compile on it again.",
        )
    console.print(
        f"[green]ok[/] {len(loaded.manifest['files'])} digests, {len(shares)} golden frames, "
        f"worst agreement {min(shares):.4f}"
    )


@app.command()
def targets(json_to: Annotated[str | None, JSON_OPTION] = None) -> None:
    """List the device profiles and what can run on this machine."""
    from edgeseg import backends
    from edgeseg.target import Target, names

    rows = [Target.load(name) for name in names()]
    reasons = {t.name: backends.get(t.backend).probe() for t in rows}
    shown = table("Targets", "target", "device", "precisions", "here")
    for row in rows:
        shown.add_row(row.name, row.title, " ".join(row.precisions), reasons[row.name] or "[green]runs[/]")
    console.print(shown)
    emit({t.name: {"title": t.title, "precisions": t.precisions, "missing": reasons[t.name]} for t in rows}, json_to)


def describe(bundle: Any) -> None:
    """One paragraph about a bundle that was just made."""
    m = bundle.manifest
    shown = table(f"{bundle.path}", "", "")
    shown.add_row("target", f"{bundle.target} {bundle.precision}, {bundle.size / 1e6:.2f} MB")
    shown.add_row("input", f"{bundle.spec.width}x{bundle.spec.height} {bundle.spec.color}")
    shown.add_row("BatchNorm nodes", f"{m['graph']['batchnorm_before']} -> {m['graph']['batchnorm_after']}")
    for note in m["graph"]["notes"]:
        shown.add_row("graph", note)
    p = m["parity"]
    shown.add_row("agreement with parent", f"{percent(p['agreement'])} % (worst frame {percent(p['worst'])} %)")
    if metrics := m.get("metrics"):
        shown.add_row(f"mIoU on {metrics['data']} {metrics['split']}", f"{percent(metrics['miou'])}")
    console.print(shown)


def _as_onnx(model: Path) -> Path:
    """A checkpoint is exported beside itself first."""
    if model.suffix not in (".pt", ".pth"):
        return model
    from edgeseg.training.export import export_onnx

    return export_onnx(model, model.with_suffix(".onnx"))


def _parity_frames(chosen: Any, spec: Spec) -> list[Any]:
    if chosen is not None:
        from edgeseg.compile import PARITY_FRAMES

        return list(islice(chosen.images(spec), PARITY_FRAMES))
    from edgeseg.data.synthetic import Street

    return [Street(seed, height=spec.height, width=spec.width).frame(0)[0] for seed in range(900, 908)]


def _spec_file(path: Path | None) -> dict[str, Any]:
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
