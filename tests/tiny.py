"""Tiny real things to test with: ONNX networks built node by node, frames, and the parent's own outputs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeseg.spec import Spec
from edgeseg.synth.street import CLASSES

HEIGHT, WIDTH = 64, 96
SPEC = Spec(HEIGHT, WIDTH, CLASSES.names, CLASSES.palette, CLASSES.ignore_index)
PAIR = Spec(HEIGHT, WIDTH, ("nothing", "thing"), head="threshold")


def frames(count: int, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> list[np.ndarray]:
    """Smooth colored clouds with a little noise, [H, W, 3] uint8."""
    random = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        clouds = cv2.resize(random.integers(0, 256, (5, 7, 3)).astype(np.float32), (width, height))
        images.append(np.clip(clouds + random.normal(0, 4, clouds.shape), 0, 255).astype(np.uint8))
    return images


class Net:
    """An ONNX graph being built; every method returns the name of the tensor it adds."""

    def __init__(self, seed: int = 0, float_type: type = np.float32):
        self.random = np.random.default_rng(seed)
        self.float_type = float_type
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def constant(self, value: Any, name: str = "", kind: Any = None) -> str:
        from onnx import numpy_helper

        name = name or f"w{len(self.weights)}"
        array = np.asarray(value, kind or self.float_type)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = name or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def conv(
        self, x: str, into: int, out: int, size: int = 3, stride: int = 1, name: str = "", weight: str = ""
    ) -> str:
        if not weight:
            weight = self.constant(self.random.normal(0, (into * size * size) ** -0.5, (out, into, size, size)))
        bias = self.constant(self.random.normal(0, 0.2, out))
        pads = [size // 2] * 4
        return self.add("Conv", x, weight, bias, name=name, strides=[stride, stride], pads=pads)

    def norm(self, x: str, channels: int, name: str = "", prefix: str = "") -> str:
        names = [f"{prefix}_{n}" if prefix else "" for n in ("weight", "bias", "mean", "var")]
        values = (
            self.random.uniform(0.5, 1.5, channels),
            self.random.normal(0, 0.3, channels),
            self.random.normal(0, 0.3, channels),
            self.random.uniform(0.5, 2, channels),
        )
        return self.add("BatchNormalization", x, *map(self.constant, values, names), name=name)

    def head(self, x: str, classes: int, name: str = "") -> str:
        """Conv-BN-ReLU twice at stride 2, then logits at stride 4."""
        x = self.add("Relu", self.norm(self.conv(x, 3, 8, stride=2), 8))
        x = self.add("Relu", self.norm(self.conv(x, 8, 16, stride=2), 16))
        return self.conv(x, 16, classes, size=1, name=name)

    def resize(self, x: str, mode: str = "half_pixel", sizes: Any = None, kind: str = "linear", **more: Any) -> str:
        """To `sizes` (a tensor's name, or H and W of 8 channels), else four times larger."""
        if sizes is None:
            scales = self.constant([1, 1, 4, 4], kind=np.float32)
            values = ["", scales]
        else:
            values = ["", "", sizes if isinstance(sizes, str) else self.constant(sizes, kind=np.int64)]
        return self.add("Resize", x, *values, mode=kind, coordinate_transformation_mode=mode, **more)

    def model(
        self,
        *outputs: str,
        entry: str = "image",
        shape: Any = (1, 3, HEIGHT, WIDTH),
        spec: Spec | None = None,
        opset: int = 17,
    ) -> Any:
        """The checked ModelProto; outputs get the types that shape inference finds."""
        import json

        import onnx
        from onnx import helper

        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.float_type))
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [helper.make_tensor_value_info(entry, kind, list(shape))],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        model = onnx.shape_inference.infer_shapes(model)
        if spec is not None:
            entry = model.metadata_props.add()
            entry.key, entry.value = "edgeseg.spec", json.dumps(spec.to_dict())
        onnx.checker.check_model(model)
        return model


def network(path: Path, spec: Spec | None = SPEC, seed: int = 0) -> Path:
    """The ordinary case as a file: logits at stride 4, a trailing bilinear Resize, its Spec inside."""
    import onnx

    net = Net(seed)
    onnx.save(net.model(net.resize(net.head("image", len(SPEC.classes))), spec=spec), str(path))
    return path


def parent_says(model: Any, frame: np.ndarray, spec: Spec, output: str = "", layout: str = "NCHW") -> np.ndarray:
    """The class map of a float network through ONNX Runtime, by code that shares nothing with edgeseg."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    pixels = frame[..., ::-1] if spec.color == "RGB" else frame
    batch = ((pixels / 255.0 - spec.mean) / spec.std)[None].astype(
        np.float16 if "float16" in entry.type else np.float32
    )
    batch = batch if layout == "NHWC" else batch.transpose(0, 3, 1, 2)
    result = session.run([output] if output else None, {entry.name: np.ascontiguousarray(batch)})[0]
    result = result.reshape(-1, *result.shape[-2:])
    if spec.head == "argmax" and len(result) == 1:
        return result[0].astype(np.uint8)
    planes = [cv2.resize(p.astype(np.float32), (spec.width, spec.height)) for p in result]
    if spec.head == "threshold":
        border = 0.5 if result.min() >= 0 and result.max() <= 1 else 0
        return (planes[0] > border).astype(np.uint8)
    return np.argmax(planes, 0).astype(np.uint8)


def executed(xml: Path, compute: str = "f32") -> Counter[str]:
    """What OpenVINO runs the convolutions of a bundle's model in, and how many of them."""
    import openvino as ov

    compiled = ov.Core().compile_model(xml, "CPU", {"INFERENCE_PRECISION_HINT": compute})
    infos = [op.get_rt_info() for op in compiled.get_runtime_model().get_ops()]
    return Counter(
        str(info["runtimePrecision"].astype(str))
        for info in infos
        if str(info["layerType"].astype(str)) == "Convolution"
    )


def reseal(folder: Path) -> None:
    """Write the digests of a bundle's files again, after a test changed them."""
    from edgeseg.bundle import MANIFEST, Manifest, seal

    seal(folder, Manifest.from_dict(json.loads((folder / MANIFEST).read_text()), folder))
