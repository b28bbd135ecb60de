"""Fit a deploy graph to a TensorRT board, off the device: types, opset, memory, legality."""

from __future__ import annotations

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgeseg.errors import OptionError, first_line
from edgeseg.onnx_graph.index import GraphIndex, attribute, drop_unused
from edgeseg.target import Target
from edgeseg.tensorrt.finding import Finding
from edgeseg.tensorrt.fp16 import to_fp16
from edgeseg.tensorrt.legality import check
from edgeseg.tensorrt.memory import memory

# A board's memory also holds its system, the camera's buffers and the program.
SHARE_OF_MEMORY = 0.75
# Operators whose newer versions (up to opset 22) only take more types, or attributes and inputs that may be left out.
SAME_MEANING = """
    Abs Add AveragePool BatchNormalization Cast Clip Concat Constant Conv ConvTranspose CumSum DequantizeLinear Div
    Elu Equal Flatten GlobalAveragePool GlobalMaxPool GreaterOrEqual GridSample HardSigmoid HardSwish Identity
    InstanceNormalization LeakyRelu LessOrEqual MaxPool Mul PRelu Pad Pow QuantizeLinear Relu Reshape Resize Shape
    Sigmoid Size Softplus Split Squeeze Sub Transpose Unsqueeze Where
"""

AXES_ARE_INPUTS = 18  # the opset since which those of reductions are (of ReduceSum since 13)
REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
              "ReduceProd", "ReduceSumSquare")  # fmt: skip


def fit(model: ModelProto, target: Target, precision: str) -> tuple[ModelProto, list[Finding]]:
    """The graph as the board's oldest TensorRT reads it, and what will not run there as intended.

    OptionError where TensorRT would refuse it, or where it needs more memory than the board has.
    """
    if precision == "fp16":
        model = to_fp16(model)
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
    findings = check(model, target.oldest_tensorrt)
    if fatal := [finding for finding in findings if finding.fatal]:
        first, more = fatal[0], f" And {len(fatal) - 1} more." if len(fatal) > 1 else ""
        raise OptionError(f"TensorRT on {target.name} refuses {first.node}: {first.problem}.", first.advice + more)
    return model, findings


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
        if node.domain in ("", "ai.onnx") and node.op_type not in (*SAME_MEANING.split(), *REDUCTIONS):
            since = onnx.defs.get_schema(node.op_type, own.version, "").since_version
            if since > target.opset:
                raise _too_new(target, f"{node.op_type} {node.name} is written as in opset {since}")
    model = ModelProto.FromString(model.SerializeToString())
    spell_as_before(model, target.opset)
    next(entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")).version = target.opset
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # checker and shape inference share no public base class
        raise _too_new(target, first_line(error)) from error
    return model


def spell_as_before(model: ModelProto, opset: int) -> None:
    """Write what opset 18 only spells in another way as it was spelled, in place: axes of reductions as an attribute,
    and without the attributes of Resize and Split that say what was always so."""
    if opset >= AXES_ARE_INPUTS:
        return
    index = GraphIndex(model)
    for node in model.graph.node:
        if node.op_type in REDUCTIONS and len(node.input) > 1:
            axes = index.constant_input(node, 1)
            if axes is None:
                continue  # the checker says so
            del node.input[1:]
            drop_attributes(node, "noop_with_empty_axes")
            node.attribute.append(helper.make_attribute("axes", [int(axis) for axis in axes.ravel()]))
        elif node.op_type == "Resize":
            if attribute(node, "keep_aspect_ratio_policy", b"stretch") == b"stretch":
                drop_attributes(node, "keep_aspect_ratio_policy")
            if not attribute(node, "antialias", 0):
                drop_attributes(node, "antialias")
        elif node.op_type == "Split" and len(node.input) == 1:
            drop_attributes(node, "num_outputs")
    drop_unused(model)


def drop_attributes(node: NodeProto, name: str) -> None:
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def _too_new(target: Target, why: str) -> OptionError:
    return OptionError(
        f"The network needs a newer ONNX opset than {target.opset}, the newest that TensorRT {target.tensorrt[0]} on "
        f"{target.name} reads: {why}.",
        f"Export it with opset {target.opset}, or without that operator.",
    )
