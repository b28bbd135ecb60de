"""A torch model as ONNX, compared with torch on the spot where ONNX Runtime is installed."""

from __future__ import annotations

import importlib.util
import io
import warnings

import numpy as np
import torch
from torch import nn

from edgeseg.errors import EdgesegError
from edgeseg.onnx_graph.metadata import set_spec
from edgeseg.onnx_graph.single_precision import to_float32
from edgeseg.spec import Spec
from edgeseg.training import checkpoint
from edgeseg.training.branch_merging import has_branches
from edgeseg.training.fusion import fuse

OPSET = 17
TOLERANCE = 1e-4  # of the largest logit
INT8_TOLERANCE = 0.1  # where the net rounds to 8 bits, one value rounded the other way changes all that follow


def verified_onnx(model: nn.Module, spec: Spec, title: str) -> bytes:
    """The serialized ONNX of `model`, its training branches merged.

    EdgesegError where onnxruntime, if installed, differs from torch by more than 1e-4 (a net trained for INT8: 0.1).
    `title` names the model in the message.
    """
    quantized = checkpoint.is_quantized(model)
    # A net trained for INT8 has its branches merged already. The exporter folds batch norms by itself.
    merge = has_branches(model) and not quantized
    data = to_onnx(fuse(model, (spec.height, spec.width)).model if merge else model, spec)
    if importlib.util.find_spec("onnxruntime"):
        worst = parity(model, data, spec)
        allowed = INT8_TOLERANCE if quantized else TOLERANCE
        if worst > allowed:
            raise EdgesegError(
                f"The ONNX of {title} differs from torch by {worst:.2g}.",
                f"Expected at most {allowed:g} of the largest logit; report this net's architecture.",
            )
    return data


def to_onnx(model: nn.Module, spec: Spec) -> bytes:
    """The serialized ONNX model with its Spec in the metadata.

    Written by torch's legacy exporter: the newer one cannot write opset 17.
    """
    import onnx

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (torch.zeros(1, 3, spec.height, spec.width),),
            buffer,  # type: ignore[arg-type]  # the legacy exporter takes a file object
            opset_version=OPSET,
            input_names=["image"],
            output_names=["logits"],
            dynamo=False,
        )
    graph = onnx.load_from_string(buffer.getvalue())
    to_float32(graph)  # Mask2Former computes coordinates in float64, which no runtime samples at
    # The input fixes it, but the exporter loses track where a net computes sizes at run time.
    for dimension, size in zip(graph.graph.output[0].type.tensor_type.shape.dim, _output_shape(model, spec)):
        dimension.dim_value = size
    set_spec(graph, spec)
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString())


def _output_shape(model: nn.Module, spec: Spec) -> tuple[int, ...]:
    with torch.inference_mode():
        return tuple(model(torch.zeros(1, 3, spec.height, spec.width)).shape)


def parity(model: nn.Module, data: bytes, spec: Spec) -> float:
    """Largest difference between onnxruntime and torch on noise, relative to the largest logit (at least 1)."""
    import onnxruntime

    image = torch.randn(1, 3, spec.height, spec.width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model.eval()(image).numpy()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found = session.run(None, {"image": image.numpy()})[0]
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
