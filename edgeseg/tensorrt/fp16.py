"""FP16 arithmetic written into a deploy graph: strongly typed TensorRT computes in the types that the graph says."""

from __future__ import annotations

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.errors import OptionError, first_line
from edgeseg.onnx_graph.half_precision import as_float16
from edgeseg.onnx_graph.index import GraphIndex, drop_unused

# Preprocessing and logits stay float32: pixels are normalized before they are rounded.
FLOAT32_NODES = ["pre_float", "pre_nchw", "pre_rgb", "pre_Sub", "pre_Mul", "logits", "with_background"]


def to_fp16(model: ModelProto) -> ModelProto:
    """A copy that computes in FP16 between preprocessing and logits; OptionError where its types do not allow that."""
    model = ModelProto.FromString(model.SerializeToString())
    index = GraphIndex(model)
    float32 = {name for node in model.graph.node if node.name in FLOAT32_NODES for name in node.output}
    copies: dict[str, str] = {}  # tensor -> its FP16 copy
    for node in list(model.graph.node):
        if node.name in FLOAT32_NODES:
            continue
        for i, name in enumerate(node.input):
            if node.op_type == "Resize" and i in (1, 2):
                continue  # its region and scales are float32 by definition
            if name in float32 or _is_float_weight(index, name):
                if name not in copies:
                    copies[name] = _fp16_copy(index, name)
                node.input[i] = copies[name]
        for entry in node.attribute:
            if node.op_type == "Cast" and entry.name == "to" and entry.i == TensorProto.FLOAT:
                entry.i = TensorProto.FLOAT16
    drop_unused(model)
    try:
        onnx.checker.check_model(model, full_check=True)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except Exception as error:  # checker and shape inference share no public base class
        raise OptionError(
            f"The network cannot be written in FP16: {first_line(error)}.", "Use --precision fp32 or int8."
        ) from error


def _is_float_weight(index: GraphIndex, name: str) -> bool:
    return name in index.initializers and index.initializers[name].data_type == TensorProto.FLOAT


def _fp16_copy(index: GraphIndex, name: str) -> str:
    """An initializer of the same values, or what a Cast right behind the tensor's node makes."""
    if name in index.initializers:
        return index.add_constant(f"{name}_half", as_float16(numpy_helper.to_array(index.initializers[name])))
    copy = index.fresh_name(f"{name}_half")
    producer = index.producer(name)
    assert producer is not None  # only what preprocessing makes is float32
    cast: NodeProto = helper.make_node("Cast", [name], [copy], copy, to=TensorProto.FLOAT16)
    index.insert_after(producer, cast)
    return copy
