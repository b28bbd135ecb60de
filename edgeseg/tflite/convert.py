"""convert: a static ONNX graph -> the bytes of a float .tflite file."""

from __future__ import annotations

from onnx import ModelProto, TensorProto

from edgeseg.errors import EdgesegError
from edgeseg.onnx_graph.index import element_types, static_shapes
from edgeseg.onnx_graph.loading import image_input
from edgeseg.tflite import activations, algebra, convolution, logic, padding, pointwise, pooling, resizing, shapes
from edgeseg.tflite.fusions import fuse
from edgeseg.tflite.writer import NHWC, Writer, unsupported

MODULES = (pointwise, activations, logic, shapes, convolution, pooling, resizing, padding, algebra)
OPERATORS = {name: emit for module in MODULES for name, emit in module.OPERATORS.items()}


def convert(model: ModelProto, metadata: dict[str, str] | None = None, half: bool = False) -> bytes:
    """`model` has fixed sizes and constants folded, as onnx_graph.deploy_graph and simplify leave it.

    Input and outputs keep their names; images become [1, H, W, C]. `half`: weights are stored as float16. Raises
    EdgesegError that names an operator and its node where TFLite or this writer has no counterpart.
    """
    writer = Writer(fuse(model), static_shapes(model), element_types(model), half)
    name, layout, *_ = image_input(model)
    shape, order = writer.shape(name), (0, 1, 2, 3) if layout == "NHWC" else NHWC
    dtype = "uint8" if writer.types[name] == TensorProto.UINT8 else "float32"
    writer.put(name, writer.tensor([shape[d] for d in order], dtype, name), order)
    inputs = {name: writer.values[name].index}
    for node in writer.graph.node:
        if node.op_type not in OPERATORS:
            raise unsupported(node)
        try:
            OPERATORS[node.op_type](writer, node)
        except EdgesegError:
            raise
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise unsupported(node, f"has a form that is not supported ({type(error).__name__}: {error})") from error
    outputs = {}
    for output in writer.graph.output:
        outputs[output.name] = writer.get(output.name, NHWC if len(writer.shape(output.name)) == 4 else None)
    data = {key: value.encode() for key, value in (metadata or {}).items()}
    return writer.pack(inputs, outputs, data)
