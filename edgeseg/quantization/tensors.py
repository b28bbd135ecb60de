"""The tensors of a deploy graph, computed in float32 on real frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from edgeseg.errors import MissingPackage
from edgeseg.images import Image
from edgeseg.onnx_graph.index import element_types

Array = NDArray[Any]


def activation_names(model: ModelProto) -> list[str]:
    """The names of all float tensors that nodes of the graph compute."""
    types = element_types(model)
    return [name for node in model.graph.node for name in node.output if types.get(name) == TensorProto.FLOAT]


def tensor_values(model: ModelProto, frames: Sequence[Image], names: Sequence[str]) -> Iterator[list[Array]]:
    """The tensors called `names`, in that order, for each frame ([H, W, 3] uint8 BGR)."""
    if not names:
        return iter(())
    model = onnx.ModelProto.FromString(model.SerializeToString())
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return run_graph(model, frames)


def run_graph(model: ModelProto, frames: Sequence[Image]) -> Iterator[list[Array]]:
    """The outputs of a deploy graph for each frame, by ONNX Runtime or else OpenVINO."""
    compute = _runner(model.SerializeToString())
    for frame in frames:
        yield compute(frame[None])


def _runner(data: bytes) -> Callable[[Array], list[Array]]:
    try:
        return _with_onnxruntime(data)
    except ImportError:
        pass
    try:
        return _with_openvino(data)
    except ImportError:
        raise MissingPackage("openvino or onnxruntime", "Measuring a network's tensors", "compress,openvino") from None


def _with_onnxruntime(data: bytes) -> Callable[[Array], list[Array]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Higher levels move Q/DQ pairs about and turn them into integer kernels.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda frame: list(session.run(None, {"frame": frame}))


def _with_openvino(data: bytes) -> Callable[[Array], list[Array]]:
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(core.read_model(data), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def compute(frame: Array) -> list[Array]:
        results = compiled(frame)
        return [np.array(results[output]) for output in compiled.outputs]

    return compute
