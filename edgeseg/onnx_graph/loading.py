"""Reading a trained network: its file, its image input, and a static copy of its graph with constants folded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnx import ModelProto

from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.files import require_file
from edgeseg.onnx_graph.fold_batchnorm import fold_batchnorm
from edgeseg.onnx_graph.fold_constants import fold_constants
from edgeseg.onnx_graph.index import drop_unused

MAX_BYTES = 2 << 30


def load(path: Path) -> ModelProto:
    """Read an ONNX file; FileError when it is missing, empty, too large, corrupt or not ONNX."""
    if require_file(path, "ONNX model").stat().st_size > MAX_BYTES:
        raise FileError(f"ONNX model {path} is over {MAX_BYTES >> 30} GiB.", "Edge models are smaller than that.")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf, checker and external-data errors share no base class
        raise FileError(
            f"ONNX model {path} cannot be read: {first_line(error)}.",
            "It is corrupt, truncated or not ONNX; export it again.",
        ) from error
    return model


def first_line(error: Exception) -> str:
    """The first line of onnx's message, up to 200 characters: the others may hold a whole graph."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextmanager
def graph_errors() -> Iterator[None]:
    """A graph from outside can break any step of a rewrite: raise OptionError then, with the reason's first line."""
    try:
        yield
    except EdgesegError:
        raise
    except Exception as error:
        raise OptionError(
            f"The model's graph is not understood: {first_line(error)}.",
            "If it was made for another size, give that: --size WIDTHxHEIGHT. Else export it again.",
        ) from error


def image_input(model: ModelProto) -> tuple[str, str, int | None, int | None]:
    """(name, layout, height, width) of the one image input; layout is NCHW or NHWC; a dynamic size is None."""
    weights = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    shapes = {i.name: [d.dim_value or None for d in i.type.tensor_type.shape.dim] for i in inputs}
    if len(inputs) != 1 or len(shapes[inputs[0].name]) != 4:
        raise OptionError(
            f"The model's inputs are {shapes}.",
            "Expected one image input of 4 dimensions, [N, 3, H, W] or [N, H, W, 3].",
        )
    name = inputs[0].name
    _, a, b, c = shapes[name]
    if c == 3 and a != 3:
        return name, "NHWC", a, b
    if a not in (3, None):
        raise OptionError(f"Input {name} has {a} channels.", "Expected 3 (a color image).")
    return name, "NCHW", b, c


def simplify(model: ModelProto, height: int, width: int, output: str = "") -> ModelProto:
    """A copy with a static input of [1, 3, height, width], one output, constants and batch normalization folded."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    name, layout, *fixed = image_input(model)
    if any(own not in (None, size) for own, size in zip(fixed, (height, width))):
        raise OptionError(
            f"The model's input is fixed at {fixed[1]}x{fixed[0]}, not {width}x{height}.",
            f"Use --size {fixed[1]}x{fixed[0]}, or export it with a dynamic size.",
        )
    _select_output(model, output)
    entry = next(i for i in model.graph.input if i.name == name).type.tensor_type.shape
    for dim, value in zip(entry.dim, [1, height, width, 3] if layout == "NHWC" else [1, 3, height, width]):
        dim.dim_value = value
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    with graph_errors():
        fold(model)
    return model


def fold(model: ModelProto) -> None:
    """Fold constants and batch normalization in place, and drop what no output needs."""
    fold_constants(model)
    fold_batchnorm(model)
    drop_unused(model)


def _select_output(model: ModelProto, output: str) -> None:
    """Leave only the output of that name, or the first; OptionError where there is none."""
    outputs = model.graph.output
    names = [o.name for o in outputs]
    if not names:
        raise OptionError("The model has no output.", "Export it again.")
    if output and output not in names:
        raise OptionError(f"The model has no output {output!r}.", f"Its outputs: {', '.join(names)}.")
    for value in [o for o in outputs if o.name != (output or names[0])]:
        outputs.remove(value)
