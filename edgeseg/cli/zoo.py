"""models: networks that other people have published."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli import options
from edgeseg.cli.common import console, emit, progress, results, styled, table, wrote
from edgeseg.cli.compile import compile_bundle
from edgeseg.errors import OptionError

if TYPE_CHECKING:
    from edgeseg.zoo import PublishedModel

app = typer.Typer()
models = typer.Typer(
    name="models",
    help="Published models: list them; fetch one from its author, and make an ONNX file or a bundle of it.",
    no_args_is_help=True,
)
app.add_typer(models, rich_help_panel=options.COMPILE)
ALLOWED = {"yes": ("yes", "green"), "no": ("no", "red"), "ask": ("ask", "yellow")}


@models.command("list", epilog="Example: edgeseg models list")
def list_models(json_to: options.Json = None) -> None:
    """List the models that can be fetched, with license and what they were trained on."""
    from edgeseg import zoo

    found = [zoo.PublishedModel.load(name) for name in zoo.names()]
    shown = table("", "model", "what it is", "license", "commercial use", "MB", "digest stated")
    for model in found:
        shown.add_row(
            model.name, model.title, model.license, styled(*ALLOWED[model.commercial]),
            f"{model.megabytes:g}" if model.megabytes else "-", "yes" if model.verifiable else "no",
        )  # fmt: skip
    results(json_to).print(shown)
    results(json_to).print("edgeseg models get NAME fetches one; edgeseg models list --json - says more of each.")
    emit({model.name: asdict(model) for model in found}, json_to)


@models.command("get", epilog="Example: edgeseg models get lraspp-voc --target openvino-cpu")
def get_model(
    name: Annotated[str, typer.Argument(help="A name of edgeseg models list.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write [default: NAME].")] = None,
    copies: Annotated[
        Path | None, typer.Option("--from", help="Folder with copies of the files: nothing is downloaded.")
    ] = None,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Take files whose author states no digest, as they come.")
    ] = False,
    target: Annotated[str | None, typer.Option(help="Also compile a bundle for this target.")] = None,
    precision: options.Precision = "fp32",
    calibration: options.OptionalCalibration = None,
    json_to: options.Json = None,
) -> None:
    """Fetch a published model from its author, check it, and write it as ONNX that carries its Spec.

    Downloads only what you name here. The license is its author's, and shown.
    """
    from edgeseg import zoo
    from edgeseg.files import write_bytes
    from edgeseg.target import Target
    from edgeseg.zoo.download import fetch

    model = zoo.PublishedModel.load(name)
    if target:
        Target.load(target).require(precision)  # before anything is fetched
    if not (model.verifiable or unverified):
        raise OptionError(
            f"The author of {name} states no digest of its files: nobody can tell whether they are the right ones.",
            f"Look at {model.source}; --unverified takes them as they come, and notes their SHA-256.",
        )
    folder = out or Path(name)
    console.print(f"{model.title}\nfrom {model.source}\nlicense: {model.license}; trained on {model.data}")
    if model.commercial != "yes":
        console.print("commercial use: " + {"no": "not allowed", "ask": "not settled, ask a lawyer"}[model.commercial])
    with progress(f"fetching {name}") as update:
        digests = fetch(model, folder / "original", copies, update)
    onnx_file = _as_onnx(model, folder)
    record = {**asdict(model), "sha256": digests, "onnx": onnx_file.name}
    write_bytes(folder / "source.json", json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n")
    wrote(onnx_file)
    if target:
        bundle = folder / f"{name}-{precision}"
        compile_bundle(onnx_file, target, precision, bundle, calibration, json_to=None)
        record["bundle"] = str(bundle)
    emit(record, json_to)


def _as_onnx(model: PublishedModel, folder: Path) -> Path:
    """The fetched files as one ONNX file with its Spec."""
    path, original = folder / f"{model.name}.onnx", folder / "original"
    if model.format == "hugging-face":
        from edgeseg.training.hugging_face import export_hugging_face

        return export_hugging_face(original, path)
    if model.format == "torchvision":
        from edgeseg.training.torchvision_nets import export_torchvision

        return export_torchvision(model.builder, original / model.files[0].name, model.own_spec(), path)
    from edgeseg.onnx_graph.metadata import with_spec

    return with_spec(original / model.files[0].name, model.own_spec(), path)
