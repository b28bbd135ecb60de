"""TorchScript and ExportedProgram (.pt2) -> ONNX, compared with torch on the spot.

Both are programs, not data: TorchScript can read and write files, and torch.export.load unpickles and evaluates what
the file says. So they are read only when the user trusts the file.
"""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError, FileError, OptionError, first_line
from edgeseg.files import require_file, write_bytes
from edgeseg.onnx_graph.formats import FROM_TORCH, torch_program
from edgeseg.spec import ONNX_KEY
from edgeseg.training.onnx_export import OPSET, TOLERANCE

Size = tuple[int, int]


class Exported(nn.Module):
    """An exported program as a module that the exporter takes: its outputs are tensors, and it stays in the mode that
    it was exported in, since it refuses to be set to another."""

    def __init__(self, program: nn.Module):
        super().__init__()
        self.program = program

    def train(self, mode: bool = True) -> Exported:
        return self

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tensors(self.program(image))


def tensors(found: Any) -> tuple[Tensor, ...]:
    """The tensors among a network's outputs: one, several, or by name."""
    values = found.values() if isinstance(found, dict) else [found] if isinstance(found, Tensor) else found
    return tuple(value for value in values if isinstance(value, Tensor))


def export_program(path: Path, out: Path, size: Size | None = None) -> Path:
    """Write a program that takes `image` float32 [1, C, H, W] as ONNX; runs what the file holds, which must be trusted.

    `size`: (height, width), by default that of the inputs that the file was exported with. OptionError where nothing
    says the size, or it does not run; EdgesegError where the ONNX differs from torch by more than 1e-4.
    """
    require_file(path, "Program")
    program, shape, carried = _exported(path) if torch_program(path) == "exported" else _scripted(path)
    if size:
        shape = (1, shape[1] if shape else 3, *size)
    if not shape:
        raise OptionError(f"{path} does not say its input size.", "Give it: --size WIDTHxHEIGHT.")
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            expected = tensors(program(image))
            data = _to_onnx(program, image)
    except Exception as error:  # whatever the program raises
        raise OptionError(
            f"{path} does not run at {shape[3]}x{shape[2]}, or cannot be written as ONNX: {first_line(error)}",
            f"Give another --size, or export the network itself: {FROM_TORCH}",
        ) from error
    _require_equal(data, image, expected, path)
    write_bytes(out, _with_property(data, carried))
    return out


def _exported(path: Path) -> tuple[Any, tuple[int, ...] | None, str]:
    try:
        logging.getLogger("torch.export").setLevel(logging.ERROR)
        program = torch.export.load(path)
        examples = program.example_inputs[0] if program.example_inputs else ()
        return Exported(program.module()), tuple(examples[0].shape) if examples else None, ""
    except Exception as error:
        raise FileError(
            f"{path} cannot be read: {first_line(error)}",
            "It is damaged, or of another release of torch than this one.",
        ) from error


def _scripted(path: Path) -> tuple[Any, tuple[int, ...] | None, str]:
    extra = {ONNX_KEY: ""}
    untyped: Any = torch.jit
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = untyped.load(str(path), map_location="cpu", _extra_files=extra).eval()
    except Exception as error:
        raise FileError(f"{path} cannot be read: {first_line(error)}", "Save it again: torch.jit.save.") from error
    text = extra[ONNX_KEY]
    carried = text.decode() if isinstance(text, bytes) else text
    return program, _size_in(carried), carried


def _size_in(spec: str) -> tuple[int, ...] | None:
    """The input's shape by the Spec that `edgeseg export --format torchscript` stores."""
    from edgeseg.records import parse_json
    from edgeseg.spec import Spec

    if not spec:
        return None
    carried = Spec.from_dict(parse_json(spec.encode()))
    return 1, 3, carried.height, carried.width


def _to_onnx(module: nn.Module, image: Tensor) -> bytes:
    """By torch's legacy exporter, which needs no other package."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (image,), buffer, opset_version=OPSET, input_names=["image"], dynamo=False)  # type: ignore[arg-type]
    return buffer.getvalue()


def _require_equal(data: bytes, image: Tensor, expected: tuple[Tensor, ...], path: Path) -> None:
    try:
        import onnxruntime
    except ImportError:
        return
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": image.numpy()})
    for own, truth in zip(found, expected):
        worst = np.abs(own - truth.numpy()).max() / max(1.0, np.abs(truth.numpy()).max())
        if worst > TOLERANCE:
            raise EdgesegError(
                f"The ONNX of {path} differs from torch by {worst:.2g}.",
                f"Expected at most {TOLERANCE:g} of the largest value. Export the network itself: {FROM_TORCH}",
            )


def _with_property(data: bytes, spec: str) -> bytes:
    """The ONNX with the Spec that the program carried."""
    import onnx

    if not spec:
        return data
    model = onnx.load_from_string(data)
    model.metadata_props.add(key=ONNX_KEY, value=spec)
    return bytes(model.SerializeToString())
