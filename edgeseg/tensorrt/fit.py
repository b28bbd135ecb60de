"""Fit a deploy graph to a TensorRT board, off the device: types, opset, memory, legality."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.errors import OptionError
from edgeseg.onnx_graph.index import drop_unused, element_types, fresh_name, static_shapes
from edgeseg.target import Target
from edgeseg.tensorrt.legality import Finding, check

# Preprocessing and logits stay float32: pixels are normalized before they are rounded.
FLOAT32_NODES = ["pre_float", "pre_nchw", "pre_rgb", "pre_Sub", "pre_Mul", "logits", "with_background"]
# A board's memory also holds its system, the camera's buffers and the program.
SHARE_OF_MEMORY = 0.75
# Operators whose newer versions (up to opset 22) only take more types, or attributes and inputs that may be left out.
SAME_MEANING = """
    Abs Add AveragePool BatchNormalization Cast Clip Concat Constant Conv ConvTranspose CumSum DequantizeLinear Div
    Elu Equal Flatten GlobalAveragePool GlobalMaxPool GreaterOrEqual GridSample HardSigmoid HardSwish Identity
    InstanceNormalization LeakyRelu LessOrEqual MaxPool Mul PRelu Pad Pow QuantizeLinear Relu Reshape Resize Shape
    Sigmoid Size Softplus Split Squeeze Sub Transpose Unsqueeze Where
"""


def fit(model: ModelProto, target: Target, precision: str) -> tuple[ModelProto, list[Finding]]:
    """The graph as the board's oldest TensorRT reads it, and what will not run as meant there.

    OptionError where TensorRT would refuse it, or where it needs more memory than the board has.
    """
    if precision == "fp16":
        model = half(model)
    if target.frame == "float32":
        model = float_frame(model)
    model = older_opset(model, target)
    needed = memory(model) / 1e6 + target.workspace_mb
    if target.memory_mb and needed > SHARE_OF_MEMORY * target.memory_mb:
        raise OptionError(
            f"The network needs about {needed:.0f} MB, its builder's workspace included; {target.name} has "
            f"{target.memory_mb} MB, of which {SHARE_OF_MEMORY:.0%} are counted on.",
            "Choose a smaller --size, a narrower network, or a larger board.",
        )
    found = check(model, target.oldest_tensorrt)
    fatal = [finding for finding in found if finding.fatal]
    if fatal:
        more = f" And {len(fatal) - 1} more." if len(fatal) > 1 else ""
        raise OptionError(f"TensorRT on {target.name} refuses {fatal[0].node}: {fatal[0].what}.", fatal[0].todo + more)
    return model, found


def half(model: ModelProto) -> ModelProto:
    """FP16 arithmetic between preprocessing and logits, written into the graph: strongly typed TensorRT asks for it."""
    model = ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    weights = {w.name: w for w in graph.initializer if w.data_type == TensorProto.FLOAT}
    outer = {name for node in graph.node if node.name in FLOAT32_NODES for name in node.output}
    made: dict[str, str] = {}
    casts: dict[str, NodeProto] = {}
    for node in graph.node:
        if node.name in FLOAT32_NODES:
            continue
        for i, name in enumerate(node.input):
            if (name not in weights and name not in outer) or (node.op_type == "Resize" and i in (1, 2)):
                continue  # the region and scales of a Resize are float32 by definition
            if name not in made:
                made[name] = fresh_name(model, f"{name}_half")
                if name in weights:
                    values = np.clip(numpy_helper.to_array(weights[name]), -65504, 65504).astype(np.float16)
                    graph.initializer.append(numpy_helper.from_array(values, made[name]))
                else:
                    casts[name] = helper.make_node("Cast", [name], [made[name]], made[name], to=TensorProto.FLOAT16)
            node.input[i] = made[name]
        for entry in node.attribute:
            if node.op_type == "Cast" and entry.name == "to" and entry.i == TensorProto.FLOAT:
                entry.i = TensorProto.FLOAT16
    for name, cast in casts.items():
        maker = next(i for i, node in enumerate(graph.node) if name in node.output)
        graph.node.insert(maker + 1, cast)
    drop_unused(model)
    del graph.value_info[:]
    try:
        onnx.checker.check_model(model, full_check=True)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except Exception as error:  # checker and shape inference share no public base class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise OptionError(
            f"The network cannot be written in FP16: {reason}.", "Use --precision fp32 or int8."
        ) from error


def float_frame(model: ModelProto) -> ModelProto:
    """Take the frame as float32 (0 to 255): TensorRT before 8.5 has no uint8 inputs."""
    model = ModelProto.FromString(model.SerializeToString())
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def older_opset(model: ModelProto, target: Target) -> ModelProto:
    """The graph in the newest opset that the board's TensorRT reads.

    Only the label changes, so each operator must mean the same in both: onnx's own converter knows few ways down, and
    the checker refuses attributes and inputs that the older opset does not have.
    """
    own = next(entry for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if not target.opset or own.version <= target.opset:
        return model
    for node in model.graph.node:
        if node.domain in ("", "ai.onnx") and node.op_type not in SAME_MEANING.split():
            since = onnx.defs.get_schema(node.op_type, own.version, "").since_version
            if since > target.opset:
                raise _too_new(target, f"{node.op_type} {node.name} is written as in opset {since}")
    model = ModelProto.FromString(model.SerializeToString())
    next(entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")).version = target.opset
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # checker and shape inference share no public base class
        raise _too_new(target, (str(error).strip() or type(error).__name__).splitlines()[0][:200]) from error
    return model


def _too_new(target: Target, why: str) -> OptionError:
    return OptionError(
        f"The network needs a newer ONNX opset than {target.opset}, the newest that TensorRT {target.tensorrt[0]} on "
        f"{target.name} reads: {why}.",
        f"Export it with opset {target.opset}, or without that operator.",
    )


def memory(model: ModelProto) -> int:
    """Bytes: weights, and the activations that are alive at once when the nodes run in order."""
    shapes, types = static_shapes(model), element_types(model)

    def size(name: str) -> int:
        width = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(types.get(name) or TensorProto.FLOAT)).itemsize
        return int(np.prod(shapes.get(name, [0]), dtype=np.int64)) * width

    last = {name: i for i, node in enumerate(model.graph.node) for name in node.input}
    weights = {w.name: len(w.SerializeToString()) for w in model.graph.initializer}
    alive, peak = {value.name: size(value.name) for value in model.graph.input}, 0
    for i, node in enumerate(model.graph.node):
        alive.update({name: size(name) for name in node.output})
        peak = max(peak, sum(alive.values()))
        alive = {name: held for name, held in alive.items() if last.get(name, -1) > i}
    return sum(weights.values()) + peak
