"""verify, parity: does a bundle compute what it should? keygen, sign: is it the one that was published?"""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli import options
from edgeseg.cli.common import emit, percent, results, size, status, styled, table, wrote
from edgeseg.cli.models import as_onnx, find_spec, is_checkpoint, spec_table
from edgeseg.errors import BundleError, OptionError

if TYPE_CHECKING:
    from edgeseg.evaluation.matrix import MatrixRow

app = typer.Typer()
log = logging.getLogger(__name__)


@app.command(rich_help_panel=options.VERIFY, epilog="Example: edgeseg verify street-int8 --key public.pem")
def verify(
    bundle: options.Bundle,
    minimum: Annotated[float, typer.Option(help="Minimum agreement with a golden class map, as a share.")] = 0.99,
    key: Annotated[Path | None, typer.Option(help="Public key: refuse a bundle that its owner did not sign.")] = None,
    oms_key: Annotated[
        Path | None, typer.Option(help="Public key: also require its owner's Open Model Signing signature, model.sig.")
    ] = None,
    bundle_name: options.BundleName = None,
    min_version: options.MinVersion = None,
    json_to: options.Json = None,
) -> None:
    """Verify a bundle: its signature (with --key), its digests, and its golden frames on this machine.

    For operators, after copying a bundle to a device.
    """
    from edgeseg import bom, model_signing, signature
    from edgeseg.bundle import Bundle
    from edgeseg.runtime import PROXY, SATURATES, golden_agreement, open_segmenter, saturates

    if not key and (bundle_name or min_version is not None):
        raise OptionError("A name or version of the bundle without a signature.", "Add --key PUBLIC.pem.")
    required = signature.Required(key, bundle_name or "", min_version) if key else None
    loaded = Bundle.load(bundle)
    if oms_key:
        model_signing.require(loaded, oms_key)
    with open_segmenter(loaded, required=required, backend=PROXY) as segmenter:
        shares = golden_agreement(segmenter, loaded)
    files = len(loaded.manifest.files)
    ran = segmenter.backend
    emit(
        {"bundle": str(bundle), "signed": bool(key), "files": files, "golden_agreement": shares, "backend": ran},
        json_to,
    )
    if not shares or min(shares) < minimum:
        other = "This machine or runtime computes something else; compile on it again."
        why = f"This CPU is the cause: {SATURATES}" if saturates(loaded) else other
        raise BundleError(
            f"Bundle {bundle}: a golden frame agrees on {min(shares, default=0):.2%} of pixels only.",
            f"Expected {minimum:.0%}. {why}",
        )
    parts = [text for text, given in (("signature", key), ("Open Model Signing", oms_key)) if given]
    parts += ["bill of materials"] if bom.check(loaded) else []
    parts += [f"{files} digests", f"{len(shares)} golden frames", f"worst agreement {min(shares):.4f}"]
    parts += [segmenter.backend] if segmenter.backend.startswith("through") else []
    results(json_to).print(styled("ok", "green", f" {', '.join(parts)}"))


@app.command(
    rich_help_panel=options.VERIFY,
    epilog="Example: edgeseg parity model.onnx --targets openvino-cpu:int8,onnxruntime-cpu:fp32 --calibration frames/",
)
def parity(
    model: options.Model,
    targets: Annotated[
        str, typer.Option(help="TARGET:PRECISION, comma separated [default: all that run here, fp32 and int8].")
    ] = "",
    frames: Annotated[Path | None, typer.Option(help="Folder of images to compare on [default: rendered].")] = None,
    count: Annotated[int, typer.Option(help="How many of them to use.", min=1)] = 8,
    calibration: options.OptionalCalibration = None,
    calibration_frames: options.CalibrationFrames = 64,
    spec_file: options.SpecFile = None,
    input_size: options.InputSize = None,
    json_to: options.Json = None,
) -> None:
    """Compare one model on every backend and precision with the model itself.

    For model owners who ask which runtime to trust.
    """
    from edgeseg.calibration.frames import CalibrationSet
    from edgeseg.compile import compile_model
    from edgeseg.evaluation.matrix import matrix
    from edgeseg.precision import Precision
    from edgeseg.target import Target

    pairs = _pairs(targets, calibration is not None)
    if calibration is None and any(precision.is_int8 for _, precision in pairs):
        raise OptionError(
            "INT8 needs calibration frames.", "Give some: --calibration FOLDER (images like the camera's)."
        )
    overrides = spec_table(spec_file)
    if input_size:
        overrides["height"], overrides["width"] = size(input_size)
    with TemporaryDirectory(prefix="edgeseg-parity-") as folder:
        source = as_onnx(model, Path(folder))
        spec = find_spec(source, overrides)
        images = _images(frames, count, spec)
        reference = _reference(model, source, spec, images)
        chosen = CalibrationSet.choose(calibration, calibration_frames) if calibration else None
        with status("compiling") as update:

            def build(target: Target, precision: Precision) -> Path:
                update(f"{target.name}:{precision}")
                out = Path(folder) / f"{target.name}-{precision}"
                compile_model(
                    source, out, target, precision, spec=spec, frames=images, calibration=chosen, allow_loss=True
                )
                return out

            rows = matrix(build, pairs, reference, images)
    _show(model, reference.runtime, len(images), rows, json_to)
    plain = [row.to_dict() for row in rows]
    emit({"model": str(model), "reference": reference.runtime, "frames": len(images), "rows": plain}, json_to)


@app.command(rich_help_panel=options.VERIFY, epilog="Example: edgeseg keygen private.pem")
def keygen(
    key: Annotated[
        Path, typer.Argument(help="Private key to write; the public key (.pub.pem) goes beside it.", show_default=False)
    ],
    oms: Annotated[bool, typer.Option("--oms", help="A key on P-256 for Open Model Signing: sign --oms-key.")] = False,
) -> None:
    """Generate an Ed25519 key pair for signing bundles.

    Keep the private key to yourself; devices get the public one.
    """
    from edgeseg import model_signing, signature

    public = (model_signing if oms else signature).new_key(key)
    wrote(key)
    wrote(public)


@app.command(rich_help_panel=options.VERIFY, epilog="Example: edgeseg sign street-int8 --key private.pem")
def sign(
    bundle: options.Bundle,
    key: Annotated[Path | None, typer.Option(help="Private key of edgeseg keygen: write bundle.sig.")] = None,
    oms_key: Annotated[
        Path | None,
        typer.Option(help="Private key of edgeseg keygen --oms: write model.sig, which tools of others verify."),
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=0, help="Sign it as this version, so that devices can refuse older ones.")
    ] = None,
    name: Annotated[str, typer.Option(help="With --version: sign it under this name [default: the bundle's].")] = "",
) -> None:
    """Sign a bundle: whoever has the public key can check that you made it and that nobody changed it."""
    from edgeseg import model_signing, signature

    if not key and not oms_key:
        raise OptionError("A signature needs a key.", "Give --key PRIVATE.pem, --oms-key PRIVATE.pem, or both.")
    if not key and (name or version is not None):
        raise OptionError(
            "A name or version without --key.", "Only bundle.sig is bound to them: add --key PRIVATE.pem."
        )
    if key:
        wrote(signature.sign(bundle, key, name, version))
    if oms_key:
        wrote(model_signing.sign(bundle, oms_key))


def _pairs(text: str, calibrated: bool) -> list[Any]:
    from edgeseg import backends
    from edgeseg.target import Target, names, split

    if text:
        return [split(part.strip()) for part in text.split(",")]
    here = [target for target in map(Target.load, names()) if not backends.missing(target)]
    usual = ("fp32", "int8") if calibrated else ("fp32",)
    return [(target, precision) for target in here for precision in target.precisions if precision in usual]


def _reference(model: Path, source: Path, spec: Any, images: list[Any]) -> Any:
    from edgeseg.evaluation import parity
    from edgeseg.evaluation.matrix import Reference

    if is_checkpoint(model):
        from edgeseg.training.export import outputs

        return Reference.of_outputs(*outputs(model, [parity.normalized(image, spec) for image in images]), spec)
    return Reference.of_outputs(*parity.outputs(source, spec, images), spec)


def _images(folder: Path | None, count: int, spec: Any) -> list[Any]:
    from edgeseg.compile import rendered
    from edgeseg.fit import fit_frame
    from edgeseg.images import list_images, read_image

    if folder is None:
        return rendered(spec, count)
    return [fit_frame(read_image(path), spec) for path in list_images(folder)[:count]]


def _show(model: Path, runtime: str, frames: int, rows: list[MatrixRow], json_to: str | None) -> None:
    columns = ("target", "agree %", "worst %", "mIoU %", "max diff", "mean", "ms")
    shown = table(f"{model} on {frames} frames, against {runtime}", *columns)
    for row in rows:
        name, measured = f"{row.target}:{row.precision}", row.measured
        if measured is None:
            shown.add_row(name, *["-"] * 6)
            log.warning("%s: %s", name, row.missing)
            continue
        color = "green" if row.ok else "yellow"
        logits = [f"{value:.1g}" if value is not None else "-" for value in (measured.logits_max, measured.logits_mean)]
        shares = (percent(measured.worst), percent(measured.miou))
        agreement = styled(percent(measured.agreement), color)
        shown.add_row(name, agreement, *shares, *logits, f"{measured.infer_ms:.1f}")
    results(json_to).print(shown)
