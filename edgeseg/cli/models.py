"""What several verbs do with a model: export a checkpoint, find the Spec, show the compiled bundle."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.cli.common import percent, results, size, table
from edgeseg.errors import OptionError

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.precision import Precision
    from edgeseg.spec import Spec

log = logging.getLogger(__name__)
PROGRAMS = (".pt", ".pth", ".pt2", ".ts", ".jit", ".torchscript")


def is_checkpoint(model: Path) -> bool:
    """Whether a model is a file of torch, going by its name."""
    return model.suffix in (".pt", ".pth")


def is_folder(model: Path) -> bool:
    """Whether a model is a folder of Hugging Face, as save_pretrained writes it."""
    return (model / "config.json").is_file()


def is_program(model: Path) -> bool:
    """Whether a model is TorchScript or an ExportedProgram of torch, going by what the file holds."""
    from edgeseg.onnx_graph.formats import torch_program

    return model.suffix.lower() in PROGRAMS and torch_program(model) != ""


def as_onnx(
    model: Path, folder: Path | None = None, shape: tuple[int, int] | None = None, trusted: bool = False
) -> Path:
    """A checkpoint, a Hugging Face folder or, if `trusted`, a program of torch is exported first, into `folder` or
    beside itself, for its own input size or (height, width)."""
    if is_program(model):
        from edgeseg.onnx_graph.formats import FROM_TORCH

        if not trusted:
            raise OptionError(
                f"{model} is a program of torch (TorchScript or .pt2): to read it is to run what it holds.",
                f"If you trust who made it: edgeseg compile {model} --trust. Else get the network as ONNX: "
                f"{FROM_TORCH}",
            )
        from edgeseg.training.programs import export_program

        return export_program(model, (folder or model.parent) / f"{model.stem}.onnx", shape)
    if is_folder(model):
        from edgeseg.training.hugging_face import export_hugging_face

        model = model.resolve()
        return export_hugging_face(model, (folder or model.parent) / f"{model.name}.onnx", shape)
    if not is_checkpoint(model):
        return model
    from edgeseg.training.export import export_onnx

    return export_onnx(model, (folder or model.parent) / f"{model.stem}.onnx", shape)


def find_spec(source: Path, overrides: Mapping[str, object], output: str = "") -> Spec:
    """The Spec of an ONNX file with `overrides` on top; every guess is logged."""
    from edgeseg.compile import spec_of

    spec, assumed = spec_of(source, overrides, output)
    for line in assumed:
        log.warning("assumed %s", line)
    guessed = [key for key in ("color", "mean", "std") if any(line.startswith(f"{key} ") for line in assumed)]
    if guessed:
        log.warning(
            "PREPROCESSING IS A GUESS: the file does not say its %s. Wrong values cost accuracy without an error: "
            "give %s as the network was trained, or see which suits it: edgeseg compile %s --probe FRAMES",
            ", ".join(guessed), ", ".join(f"--{key}" for key in guessed), source,
        )  # fmt: skip
    return spec


def open_model(model: Path, spec_file: Path | None, output: str) -> tuple[Path, Spec]:
    """(ONNX file, Spec) of a model file or checkpoint."""
    source = as_onnx(model)
    return source, find_spec(source, spec_table(spec_file), output)


def spec_table(path: Path | None) -> dict[str, object]:
    from edgeseg import toml

    return toml.read(path, "Spec") if path else {}


def spec_flags(flags: dict[str, str | None]) -> dict[str, object]:
    """Spec keys from command-line options, by their names."""
    values: dict[str, object] = {}
    if flags["size"]:
        values["height"], values["width"] = size(flags["size"])
    if flags["classes"]:
        values.update(_classes(flags["classes"]))
    for key in ("mean", "std"):
        if text := flags[key]:
            try:
                values[key] = tuple(float(v) for v in text.split(","))
            except ValueError:
                raise OptionError(f"--{key} {text!r} is not three numbers.", "Example: --mean 0.5,0.5,0.5") from None
    if (text := flags.get("border")) is not None:
        try:
            values["border"] = float(text)
        except ValueError:
            raise OptionError(f"--border {text!r} is not a number.", "Example: --border 0.5") from None
    return {**values, **{key: flags[key] for key in ("color", "head", "fit") if flags.get(key)}}


def _classes(text: str) -> dict[str, object]:
    try:
        listed = "," not in text and Path(text).is_file()
    except (OSError, ValueError):  # too long, or otherwise not a file name
        listed = False
    if listed:
        from edgeseg.data.dataset import read_classes

        classes = read_classes(Path(text))
        return {"classes": classes.names, "palette": classes.palette, "ignore_index": classes.ignore_index}
    return {"classes": tuple(name.strip() for name in text.split(","))}


def show_bundle(bundle: Bundle, json_to: str | None, speeds: Mapping[Precision, float]) -> None:
    """What was compiled, in a table. `speeds`: of its precision and others here, over fp32."""
    from edgeseg.target import BUILD_MODES, Target

    m = bundle.manifest
    shown = table(f"{bundle.path}", "", "")
    shown.show_header = False
    shown.add_row("target", f"{bundle.target} {bundle.precision}, {bundle.size / 1e6:.2f} MB")
    shown.add_row("input", f"{bundle.spec.width}x{bundle.spec.height} {bundle.spec.color}")
    if m.graph:
        shown.add_row("BatchNorm nodes", f"{m.graph.batchnorm_before} -> {m.graph.batchnorm_after}")
        for note in m.graph.notes:
            shown.add_row("graph", note)
    if m.ptq:
        parts = [f"ranges by {m.ptq.ranges}", *(["biases corrected"] if m.ptq.bias else [])]
        shown.add_row("INT8", ", ".join([*parts, *(["channels equalized"] if m.ptq.equalize else [])]))
    if m.kept:
        shown.add_row("excluded from INT8", ", ".join(m.kept))
    if mode := Target.load(bundle.target).build_mode:
        shown.add_row("engine", BUILD_MODES[mode])
    if speeds:
        others = [f", {p} {times:g}" for p, times in speeds.items() if p not in (bundle.precision, "fp32")]
        shown.add_row("speed here", f"{speeds[bundle.precision]:g} times fp32{''.join(others)}")
    if m.parity:
        worst = percent(m.parity.worst)
        shown.add_row("agreement with parent", f"{percent(m.parity.agreement)} % (worst frame {worst} %)")
    if m.metrics:
        shown.add_row(f"mIoU on {m.metrics.data} {m.metrics.split}", percent(m.metrics.miou))
    results(json_to).print(shown)
