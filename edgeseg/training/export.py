"""Checkpoint -> float ONNX that carries its Spec; multiply-accumulates and parameters of a model."""

from __future__ import annotations

import importlib.util
import io
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgeseg.data.images import write_bytes
from edgeseg.errors import EdgesegError
from edgeseg.spec import ONNX_KEY, Spec
from edgeseg.training import checkpoint

OPSET = 17
TOLERANCE = 1e-4


def export_onnx(ckpt: Path | str, path: Path | str) -> Path:
    """Write ONNX: `image` float32 [1, 3, H, W], normalised and in the Spec's colour order -> `logits` [1, C, H, W].

    The Spec is JSON in the metadata under `edgeseg.spec`. Raises EdgesegError where onnxruntime, if installed, does
    not agree with torch to 1e-4.
    """
    model, _, spec, _ = checkpoint.load(ckpt)
    data = to_onnx(model, spec)
    if importlib.util.find_spec("onnxruntime"):
        worst = parity(model, data, spec)
        if worst > TOLERANCE:
            raise EdgesegError(
                f"The ONNX of {ckpt} differs from torch by {worst:.2g}.",
                f"Expected at most {TOLERANCE:g} of the largest logit; report this net's architecture.",
            )
    write_bytes(Path(path), data)
    return Path(path)


def to_onnx(model: nn.Module, spec: Spec) -> bytes:
    """The serialised ONNX model, Spec inside. The legacy exporter: the newer one cannot write opset 17."""
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
    # Fixed by the input, but the exporter loses track of it where a net computes sizes while it runs.
    for dimension, size in zip(graph.graph.output[0].type.tensor_type.shape.dim, _output(model, spec)):
        dimension.dim_value = size
    entry = graph.metadata_props.add()
    entry.key, entry.value = ONNX_KEY, json.dumps(spec.to_dict())
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString())


def _output(model: nn.Module, spec: Spec) -> tuple[int, ...]:
    with torch.inference_mode():
        return tuple(model(torch.zeros(1, 3, spec.height, spec.width)).shape)


def parity(model: nn.Module, data: bytes, spec: Spec) -> float:
    """Largest difference between onnxruntime and torch on noise, as a share of the largest logit (at least 1)."""
    import onnxruntime

    image = torch.randn(1, 3, spec.height, spec.width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model.eval()(image).numpy()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    got = session.run(None, {"image": image.numpy()})[0]
    return float(np.abs(got - expected).max() / max(1.0, np.abs(expected).max()))


def macs_params(model: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """Multiply-accumulates of one frame of `size` (height, width), and the number of parameters."""
    training = model.training
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, *size))
    model.train(training)
    return counter.get_total_flops() // 2, sum(p.numel() for p in model.parameters())
