"""Reading a trained network: its file, its image input, and a static copy of its graph with constants folded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import ModelProto

from edgeseg.errors import EdgesegError, FileError, OptionError, first_line
from edgeseg.files import require_file, sha256
from edgeseg.onnx_graph import outputs
from edgeseg.onnx_graph.attention_masks import bound_masks
from edgeseg.onnx_graph.einsum import einsum_to_matmul
from edgeseg.onnx_graph.fold_batchnorm import fold_batchnorm
from edgeseg.onnx_graph.fold_constants import fold_constants
from edgeseg.onnx_graph.formats import require_onnx
from edgeseg.onnx_graph.index import drop_unused, static_shapes
from edgeseg.onnx_graph.modernize import modernize
from edgeseg.onnx_graph.single_precision import to_float32

MAX_BYTES = 2 << 30
CHANNELS = (1, 3, 4)
MAX_LISTED = 4  # inputs or outputs that a message names


def load(path: Path) -> ModelProto:
    """Read an ONNX file, brought to a current form (modernize.py); FileError when it is missing, empty, too large,
    corrupt or not ONNX, OptionError when its graph is ill-formed."""
    if path.is_dir():
        require_onnx(path)
    if require_file(path, "ONNX model").stat().st_size > MAX_BYTES:
        raise FileError(f"ONNX model {path} is over {MAX_BYTES >> 30} GiB.", "Edge models are smaller than that.")
    require_onnx(path)
    try:
        model = modernize(onnx.load(str(path)))
        _check(model)
    except EdgesegError:
        raise
    except Exception as error:  # protobuf, checker and external-data errors share no base class
        raise FileError(
            f"ONNX model {path} cannot be read: {first_line(error)}.",
            "It is corrupt, truncated or not ONNX; export it again.",
        ) from error
    return model


def digest(path: Path) -> str:
    """The sha256 of an ONNX file; where weights are stored outside it, that of its digest and those of their files."""
    graph = onnx.load(str(path), load_external_data=False)
    tensors = [t for t in graph.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    files = sorted({entry.value for t in tensors for entry in t.external_data if entry.key == "location"})
    digests = [sha256(path), *(sha256(path.parent / file) for file in files)]
    return hashlib.sha256("".join(digests).encode()).hexdigest() if files else digests[0]


def _check(model: ModelProto) -> None:
    """onnx's own check, but for outputs without a declared shape, which is found by inference anyway."""
    bare = [o for o in model.graph.output if not o.type.tensor_type.HasField("shape")]
    for value in bare:
        value.type.tensor_type.shape.SetInParent()
    onnx.checker.check_model(model)
    for value in bare:
        value.type.tensor_type.ClearField("shape")


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


class ImageInput(NamedTuple):
    """The one image input. `layout`: NCHW or NHWC; a dynamic `height` or `width` is None; `channels`: 1, 3 or 4."""

    name: str
    layout: str
    height: int | None
    width: int | None
    channels: int


def image_input(model: ModelProto) -> ImageInput:
    """OptionError for a model that has no such input, or several."""
    weights = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in weights]
    shapes = {i.name: [d.dim_value or None for d in i.type.tensor_type.shape.dim] for i in inputs}
    if len(inputs) != 1 or len(shapes[inputs[0].name]) != 4:
        listed = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:MAX_LISTED])
        more = f" and {len(shapes) - MAX_LISTED} more" if len(shapes) > MAX_LISTED else ""
        raise OptionError(
            f"The model's inputs are {listed or 'none'}{more}.",
            "Expected one image input of 4 dimensions, [N, C, H, W] or [N, H, W, C], with C = 3, 1 (gray) or 4 (RGBA).",
        )
    name = inputs[0].name
    _, a, b, c = shapes[name]
    if c in CHANNELS and a not in CHANNELS:
        return ImageInput(name, "NHWC", a, b, c)
    if a not in (*CHANNELS, None):
        raise OptionError(f"Input {name} has {a} channels.", "Expected 3 (a color image), 1 (gray) or 4 (RGBA).")
    return ImageInput(name, "NCHW", b, c, a or 3)


def simplify(model: ModelProto, height: int, width: int, output: str = "") -> ModelProto:
    """A copy with a static float32 input [1, C, height, width] and one output, constants and batch norms folded.

    `output`: its name; "" stands for the only one, or the only one of full size (outputs.py).
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    image = image_input(model)
    name, fixed = image.name, (image.height, image.width)
    if any(own not in (None, size) for own, size in zip(fixed, (height, width))):
        raise OptionError(
            f"The model's input is fixed at {fixed[1]}x{fixed[0]}, not {width}x{height}.",
            f"Use --size {fixed[1]}x{fixed[0]}, or export it with a dynamic size.",
        )
    outputs.select_named(model, output)
    entry = next(i for i in model.graph.input if i.name == name).type.tensor_type.shape
    batch = entry.dim[0].dim_value
    channels = image.channels
    shape = [1, height, width, channels] if image.layout == "NHWC" else [1, channels, height, width]
    for dim, value in zip(entry.dim, shape):
        dim.dim_value = value
    del model.graph.value_info[:]
    for output_value in model.graph.output:
        output_value.type.tensor_type.ClearField("shape")
    with graph_errors():
        fold(model)
        einsum_to_matmul(model)
        bound_masks(model)
        shapes = static_shapes(model) if batch > 1 or len(model.graph.output) > 1 else {}
    if batch > 1 and any(shapes.get(o.name, [1])[:1] == [batch] for o in model.graph.output):
        raise OptionError(
            f"The model works on a fixed batch of {batch} frames.",
            "Expected one frame at a time: export it again with a batch of 1 or a dynamic one.",
        )
    outputs.select_by_size(model, shapes, height, width)
    return model


def fold(model: ModelProto) -> None:
    """Fold constants and batch normalization in place, and drop what no output needs."""
    fold_constants(model)
    to_float32(model)
    fold_batchnorm(model)
    drop_unused(model)
