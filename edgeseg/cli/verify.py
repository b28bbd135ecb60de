"""verify, parity: does a bundle still say what it should? keygen, sign: is it the one that was made?"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from edgeseg.cli.common import JSON_OPTION, console, emit, percent, size, table
from edgeseg.errors import BundleError, OptionError

app = typer.Typer()

BundleArg = Annotated[Path, typer.Argument(help="The bundle's folder.")]


@app.command()
def verify(
    bundle: BundleArg,
    minimum: Annotated[float, typer.Option(help="Smallest agreement with a golden class map, as a share.")] = 0.99,
    key: Annotated[Path | None, typer.Option(help="A public key: refuse a bundle that its owner did not sign.")] = None,
    json_to: Annotated[str | None, JSON_OPTION] = None,
) -> None:
    """Check a bundle's signature (with --key) and digests, then run its golden frames and compare."""
    from edgeseg import signature
    from edgeseg.bundle import Bundle
    from edgeseg.mask import agreement
    from edgeseg.runtime import open_segmenter

    if key:
        signature.require(bundle, key)
    loaded = Bundle.load(bundle)
    with open_segmenter(bundle) as segmenter:
        shares = [agreement(segmenter(frame).classmap, truth) for frame, truth in loaded.golden()]
    files = len(loaded.manifest["files"])
    emit({"bundle": str(bundle), "signed": bool(key), "files": files, "golden_agreement": shares}, json_to)
    if not shares or min(shares) < minimum:
        raise BundleError(
            f"Bundle {bundle}: a golden frame agrees on {min(shares, default=0):.2%} of pixels only.",
            f"Expected {minimum:.0%}. This machine or runtime computes something else; compile on it again.",
        )
    signed = "signature, " if key else ""
    console.print(
        f"[green]ok[/] {signed}{files} digests, {len(shares)} golden frames, worst agreement {min(shares):.4f}"
    )


@app.command()
def parity(
    model: Annotated[Path, typer.Argument(help="An ONNX segmentation model, or a checkpoint (.pt) of edgeseg.")],
    targets: Annotated[
        str, typer.Option(help="TARGET:PRECISION, comma separated [default: every one here, fp32 and int8].")
    ] = "",
    frames: Annotated[Path | None, typer.Option(help="A folder of images to compare on [default: rendered].")] = None,
    count: Annotated[int, typer.Option(help="How many of them.", min=1)] = 8,
    calibration: Annotated[Path | None, typer.Option(help="For INT8: a folder of images, dataset or manifest.")] = None,
    calibration_frames: Annotated[int, typer.Option(help="How many of them to use.", min=8)] = 64,
    spec_file: Annotated[Path | None, typer.Option("--spec", help="Spec as TOML, for what the model lacks.")] = None,
    input_size: Annotated[str | None, typer.Option("--size", help="Input WIDTHxHEIGHT.")] = None,
    json_to: Annotated[str | None, JSON_OPTION] = None,
) -> None:
    """Run one model on every backend that is here, in several precisions, and compare with the model itself."""
    from edgeseg import toml
    from edgeseg.calibration.frames import Calibration
    from edgeseg.cli.compile import as_onnx
    from edgeseg.compile import compile_model, spec_of
    from edgeseg.evaluation.matrix import matrix
    from edgeseg.precision import Precision
    from edgeseg.target import Target

    pairs = _pairs(targets, calibration is not None)
    if calibration is None and any(precision.is_int8 for _, precision in pairs):
        raise OptionError(
            "INT8 needs calibration frames.", "Give some: --calibration FOLDER (images like the camera's)."
        )
    given: dict[str, Any] = toml.read(spec_file, "Spec") if spec_file else {}
    if input_size:
        given["height"], given["width"] = size(input_size)
    with TemporaryDirectory(prefix="edgeseg-parity-") as folder:
        source = as_onnx(model, Path(folder))
        spec, assumed = spec_of(source, given)
        for line in assumed:
            console.print(f"[yellow]assumed[/] {line}", highlight=False)
        images = _images(frames, count, spec)
        reference = _reference(model, source, spec, images)
        chosen = Calibration.choose(calibration, calibration_frames) if calibration else None
        with console.status("compiling") as status:

            def build(target: Target, precision: Precision) -> Path:
                status.update(f"{target.name}:{precision}")
                out = Path(folder) / f"{target.name}-{precision}"
                compile_model(source, out, target, precision, spec=spec, frames=images, calibration=chosen)
                return out

            rows = matrix(build, pairs, reference, images)
    _show(model, reference.runtime, len(images), rows)
    emit({"model": str(model), "reference": reference.runtime, "frames": len(images), "rows": rows}, json_to)


@app.command()
def keygen(
    key: Annotated[Path, typer.Argument(help="The private key to write; the public one goes beside it (.pub.pem).")],
) -> None:
    """Make an Ed25519 key pair to sign bundles with."""
    from edgeseg import signature

    public = signature.new_key(key)
    console.print(f"Wrote {key} (keep it to yourself) and {public} (for the devices).", highlight=False)


@app.command()
def sign(
    bundle: BundleArg,
    key: Annotated[Path, typer.Option(help="The private key, of edgeseg keygen.", show_default=False)],
) -> None:
    """Sign a bundle: whoever has the public key can tell that you made it and nobody changed it."""
    from edgeseg import signature

    console.print(f"Wrote {signature.sign(bundle, key)}", highlight=False)


def _pairs(text: str, calibrated: bool) -> list[Any]:
    from edgeseg import backends
    from edgeseg.target import Target, names, split

    if text:
        return [split(part.strip()) for part in text.split(",")]
    here = [target for target in map(Target.load, names()) if not backends.missing(target)]
    wanted = ("fp32", "int8") if calibrated else ("fp32",)
    return [(target, precision) for target in here for precision in wanted if precision in target.precisions]


def _is_checkpoint(model: Path) -> bool:
    return model.suffix in (".pt", ".pth")


def _reference(model: Path, source: Path, spec: Any, images: list[Any]) -> Any:
    from edgeseg.evaluation import parity
    from edgeseg.evaluation.matrix import Reference

    if _is_checkpoint(model):
        from edgeseg.training.export import outputs

        return Reference.of_outputs(*outputs(model, [parity.normalized(image, spec) for image in images]), spec)
    return Reference.of_outputs(*parity.outputs(source, spec, images), spec)


def _images(folder: Path | None, count: int, spec: Any) -> list[Any]:
    from edgeseg.images import list_images, read_image, resize
    from edgeseg.synth.street import Street

    if folder is None:
        return [Street(seed, height=spec.height, width=spec.width).frame(0)[0] for seed in range(900, 900 + count)]
    return [resize(read_image(path), spec.height, spec.width) for path in list_images(folder)[:count]]


def _show(model: Path, runtime: str, frames: int, rows: list[dict[str, Any]]) -> None:
    columns = ("target", "agree %", "worst %", "mIoU %", "max diff", "mean", "ms")
    shown = table(f"{model} on {frames} frames, against {runtime}", *columns)
    for column in shown.columns:
        column.no_wrap = True
    for row in rows:
        name = f"{row['target']}:{row['precision']}"
        if "missing" in row:
            shown.add_row(name, *["-"] * 6)
            continue
        color = "green" if row["ok"] else "yellow"
        logits = [f"{row[key]:.1g}" if row[key] is not None else "-" for key in ("logits_max", "logits_mean")]
        shares = (percent(row["worst"]), percent(row["miou"]))
        shown.add_row(name, f"[{color}]{percent(row['agreement'])}[/]", *shares, *logits, f"{row['infer_ms']:.1f}")
    console.print(shown)
    for row in rows:
        if "missing" in row:
            console.print(f"{row['target']}:{row['precision']}: {row['missing']}", markup=False, highlight=False)
