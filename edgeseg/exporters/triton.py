"""Triton Inference Server: a model repository with the bundle's own model file.

config.pbtxt is a ModelConfig of model_config.proto in triton-inference-server/common, as protobuf's text format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.bundle import Bundle
from edgeseg.errors import OptionError
from edgeseg.exporters import _trtexec
from edgeseg.exporters._tensors import Tensor, Tensors, of_onnx, of_openvino
from edgeseg.target import Target

TITLE = "Triton"
LABELS = "labels.txt"
TYPES = {np.dtype(np.uint8): "TYPE_UINT8", np.dtype(np.float32): "TYPE_FP32", np.dtype(np.float16): "TYPE_FP16"}


@dataclass(frozen=True)
class Served:
    """How Triton serves the bundles of one backend. `choice`: which of its backends, in the words of config.pbtxt;
    `copied`: the files of the bundle that it loads, none where the engine is built there; `kind`: where it runs;
    `takes_device`: whether its backend has parameters for OpenVINO's devices and hints."""

    choice: str
    copied: tuple[str, ...]
    kind: str
    tensors: Callable[[Bundle], Tensors]
    takes_device: bool = False

    @property
    def built(self) -> bool:
        return not self.copied


SERVED = {
    "openvino": Served('backend: "openvino"', ("model.xml", "model.bin"), "KIND_CPU", of_openvino, True),
    "onnxruntime": Served('backend: "onnxruntime"', ("model.onnx",), "KIND_CPU", of_onnx),
    "tensorrt": Served('platform: "tensorrt_plan"', (), "KIND_GPU", of_onnx),
}


def refuse(bundle: Bundle) -> None:
    if bundle.backend not in SERVED:
        raise OptionError(
            f"Triton has no backend for {bundle.name}, which is for {bundle.backend}.",
            f"Compile it for one of: {', '.join(SERVED)} (edgeseg targets lists targets with their backends).",
        )
    if SERVED[bundle.backend].built:
        _trtexec.refuse(bundle, TITLE)


def write(bundle: Bundle, name: str, out: Path) -> str:
    served = SERVED[bundle.backend]
    model = out / name
    version = model / "1"
    version.mkdir(parents=True)
    for file in served.copied:
        (version / file).write_bytes(bundle.read(file))
    build = ""
    if served.built:
        (model / "model.onnx").write_bytes(bundle.read("model.onnx"))
        _trtexec.write(bundle, model / "build.sh", "model.onnx", "1/model.plan")
        build = f"{model / 'build.sh'} && "
    (model / "config.pbtxt").write_text("\n".join(_config(bundle, name, served)) + "\n", "utf-8")
    (model / LABELS).write_text("\n".join(bundle.spec.classes) + "\n", "utf-8")
    return f"{build}tritonserver --model-repository {out}"


def _config(bundle: Bundle, name: str, served: Served) -> Iterator[str]:
    inputs, outputs = served.tensors(bundle)
    yield f"name: {_text(name)}"
    yield served.choice
    yield "max_batch_size: 0"  # the model's own batch axis, of 1, is part of its shapes
    for side, tensors in (("input", inputs), ("output", outputs)):
        for tensor in tensors:
            yield f"{side} [ {{ {_tensor(tensor)} }} ]"
    yield f"instance_group [ {{ count: 1 kind: {served.kind} }} ]"
    for key, value in _parameters(bundle, served).items():
        yield f"parameters {{ key: {_text(key)} value {{ string_value: {_text(value)} }} }}"


def _parameters(bundle: Bundle, served: Served) -> Mapping[str, str]:
    """Those of the backend, and what clients need to know: GET /v2/models/NAME/config shows them."""
    spec = bundle.spec
    about = {
        "edgeseg.classes": json.dumps(spec.classes, ensure_ascii=False),
        "edgeseg.palette": json.dumps(spec.palette),
        "edgeseg.upsample": bundle.upsample,
        "edgeseg.size": f"{spec.width}x{spec.height}",
        "edgeseg.bundle": bundle.digest,
    }
    if served.takes_device:
        return {"TARGET_DEVICE": Target.load(bundle.target).device, "PERFORMANCE_HINT": "LATENCY", **about}
    return about


def _tensor(tensor: Tensor) -> str:
    if tensor.dtype not in TYPES:
        raise OptionError(f"Tensor {tensor.name} is of the type {tensor.dtype}.", "Compile the bundle again.")
    dims = ", ".join(map(str, tensor.shape))
    return f"name: {_text(tensor.name)} data_type: {TYPES[tensor.dtype]} dims: [ {dims} ]"


def _text(value: Any) -> str:
    """A string of protobuf's text format."""
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
