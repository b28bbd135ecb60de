"""Small foreign networks, one of each kind that is easy to misread, and what each of them says about a frame.

The class maps come from ONNX Runtime on the untouched file and the plain numpy rules below, which share no code with
the package. Every case takes [N, 3, H, W] or [N, H, W, 3] RGB / 255.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Rule = Callable[[Array], Array]
HEIGHT, WIDTH = 64, 96


def argmax(axis: int, height: int = 0, width: int = 0) -> Rule:
    """The best channel along `axis`, upsampled bilinearly (half-pixel) first where a size is given."""

    def rule(out: Array) -> Array:
        scores = np.moveaxis(out[0].astype(np.float64), axis - 1, 0)
        return (bilinear(scores, height, width) if height else scores).argmax(0)

    return rule


def bilinear(scores: Array, height: int, width: int) -> Array:
    for axis, size in ((1, height), (2, width)):
        before = scores.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * before / size - 0.5, 0, before - 1)
        low = np.floor(at).astype(int)
        part = (at - low).reshape([-1 if i == axis else 1 for i in range(3)])
        scores = scores.take(low, axis) * (1 - part) + scores.take(np.minimum(low + 1, before - 1), axis) * part
    return scores


def above(border: float) -> Rule:
    return lambda out: (np.squeeze(out) > border).astype(int)


def ids(out: Array) -> Array:
    return np.squeeze(out).astype(int)


@dataclass(frozen=True)
class Case:
    """A network, the rule that reads its output, and the output and Spec keys to compile it with.

    `output`: the one that the rule reads, "" for the only one; `flags` are Spec keys given on the command line.
    `floor`: 0.9999, less where the file itself rounds to float16.
    """

    name: str
    rule: Rule
    build: Callable[[], onnx.ModelProto] | None = None  # None: the file of shared/cases
    output: str = ""
    flags: dict[str, Any] = field(default_factory=dict)
    floor: float = 0.9999


# Files of shared/cases/graphs
FILES = [
    Case("aux", argmax(1), output="main"),
    Case("batch4", argmax(1)),
    Case("fp16_io", argmax(1), floor=0.999),
    Case("ir7_init_inputs_bn", argmax(1)),
    Case("misc-functions", argmax(1)),
    Case("misc-ids_nearest", ids),
    Case("misc-if_static", ids),
    Case("misc-opset7_ir3", argmax(1)),
    Case("nhwc-128x192x5-logits", argmax(3)),
    Case("nhwc-192x192x2-softmax", argmax(3)),
    Case("novnni", argmax(1)),
    Case("op11", argmax(1)),
    Case("prob-sigmoid_clip", above(0.5)),
    Case("prob-softmax_slice", above(0.5)),
    Case("resize10", argmax(1)),
    Case("unsorted", argmax(1, 64, 64)),
]


class Builder:
    """Writes a graph node by node; every method returns the name of a tensor."""

    def __init__(self, seed: int, declared: bool = True):
        self.declared = declared  # whether the outputs' shapes are in the file
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def const(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"n{name}", domain=domain, **attributes))
        return name

    def conv(self, x: str, before: int, after: int, size: int = 3, stride: int = 1) -> str:
        scale = 2.5 / np.sqrt(before * size * size)
        weight = self.const(self.random.normal(0, scale, [after, before, size, size]))
        bias = self.const(self.random.normal(0, 0.1, [after]))
        return self.add("Conv", x, weight, bias, pads=[size // 2] * 4, strides=[stride] * 2)

    def body(self, classes: int, x: str = "image", channels: int = 3) -> str:
        """[1, classes, H / 4, W / 4]: logits, centered so that every class occurs."""
        x = self.add("Relu", self.conv(x, channels, 8, stride=2))
        x = self.conv(self.add("Relu", self.conv(x, 8, 12, stride=2)), 12, classes, 1)
        return self.add("InstanceNormalization", x, self.const([1] * classes), self.const([0] * classes))

    def resize(self, x: str, mode: str = "linear", scale: float = 4) -> str:
        scales = self.const([1, 1, scale, scale])
        coordinates = "half_pixel" if mode == "linear" else "asymmetric"
        more = {"nearest_mode": "floor"} if mode == "nearest" else {}
        return self.add(
            "Resize", x, self.const([]), scales, mode=mode, coordinate_transformation_mode=coordinates, **more
        )

    def model(
        self, *outputs: str, shape: Any = (1, 3, HEIGHT, WIDTH), kind: int = TensorProto.FLOAT,
        out_kind: int = TensorProto.FLOAT, opset: int = 17, ir: int = 8, functions: Any = (), inputs: Any = (),
    ) -> onnx.ModelProto:  # fmt: skip
        values = [onnx.ValueInfoProto(name=name) for name in outputs]
        for value in values:
            value.type.tensor_type.elem_type = out_kind
        entry = helper.make_tensor_value_info("image", kind, shape)
        graph = helper.make_graph(self.nodes, "foreign", [entry, *inputs], values, self.weights)
        opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid("own", 1)] if functions else [])]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=ir, functions=list(functions))
        if self.declared:
            shapes = onnx.shape_inference.infer_shapes(made)
            for value, inferred in zip(made.graph.output, shapes.graph.output):
                value.CopyFrom(inferred)
        return made


def probability(kind: str, seed: int, times: float = 1) -> Callable[[], onnx.ModelProto]:
    """One channel of probabilities at full size, made in the way `kind` says, times `times`."""

    def build() -> onnx.ModelProto:
        b = Builder(seed)
        if kind.startswith("softmax"):
            x = b.add("Softmax", b.resize(b.body(2)), axis=1)
            if kind == "softmax_gather":
                x = b.add("Gather", x, b.const([1], np.int64), axis=1)
            else:
                x = b.add("Slice", x, *(b.const([v], np.int64) for v in (1, 2, 1)))
        else:
            x = b.resize(b.body(1))
            if kind == "hard_sigmoid":
                x = b.add("HardSigmoid", x, alpha=0.2, beta=0.5)
            elif kind == "clip":
                x = b.add("Clip", b.add("Sigmoid", x), b.const(1e-4), b.const(1 - 1e-4))
            elif kind == "spelled":
                x = b.add("Add", b.add("Exp", b.add("Neg", x)), b.const(1))
                x = b.add("Div", b.const(1), x)
            else:
                x = b.add("Sigmoid", x)
        return b.model(b.add("Mul", x, b.const(times)) if times != 1 else x)

    return build


def nhwc(classes: int, seed: int, softmax: bool = False, reader: str = "", width: int = WIDTH) -> Any:
    def build() -> onnx.ModelProto:
        b = Builder(seed)
        x = b.resize(b.body(classes, b.add("Transpose", "image", perm=[0, 3, 1, 2])))
        x = b.add("Transpose", x, perm=[0, 2, 3, 1])
        x = b.add("Softmax", x, axis=-1) if softmax else x
        if reader == "argmax":
            return b.model(
                b.add("ArgMax", x, axis=3, keepdims=0), shape=(1, HEIGHT, width, 3), out_kind=TensorProto.INT64
            )
        return b.model(x, shape=(1, HEIGHT, width, 3))

    return build


def class_ids(kind: str, seed: int) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        b = Builder(seed)
        if kind == "greater":
            return b.model(b.add("Greater", b.resize(b.body(1)), b.const(0.3)), out_kind=TensorProto.BOOL)
        x = b.body(5)
        x = x if "nearest" in kind else b.resize(x)
        if kind == "nhwc":
            x = b.add("Transpose", x, perm=[0, 2, 3, 1])
            return b.model(b.add("ArgMax", x, axis=3, keepdims=1), out_kind=TensorProto.INT64)
        x = b.add("ArgMax", x, axis=1, keepdims=1)
        if kind == "int64 nearest":  # Resize takes int64 ids as they are
            return b.model(b.resize(b.add("Cast", x, to=TensorProto.INT32), "nearest"), out_kind=TensorProto.INT32)
        x = b.add("Cast", x, to=TensorProto.FLOAT)
        if kind == "nearest":
            return b.model(b.resize(x, "nearest"))
        if kind == "squeezed":
            return b.model(b.add("Squeeze", x, b.const([1], np.int64)))
        return b.model(b.add("Mul", x, b.const(1)))

    return build


def old(opset: int, seed: int, ir: int, op: str = "Resize", initializers_among_inputs: bool = False) -> Any:
    """A network of an old opset, whose last operator resizes with scales as its second input."""

    def build() -> onnx.ModelProto:
        b = Builder(seed)
        x = b.body(5)
        if op == "Upsample7":
            x = b.add("Upsample", x, mode="linear", scales=[1.0, 1.0, 4.0, 4.0])
        else:
            x = b.add(op, x, b.const([1, 1, 4, 4]), mode="linear")
        inputs = [helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in b.weights]
        return b.model(x, opset=opset, ir=ir, inputs=inputs if initializers_among_inputs else ())

    return build


def modern(opset: int, seed: int, kind: int = TensorProto.FLOAT, softmax: bool = False, declared: bool = True) -> Any:
    def build() -> onnx.ModelProto:
        b = Builder(seed, declared)
        x = b.resize(b.body(5))
        x = b.add("Softmax", x, axis=1) if softmax else x
        model = b.model(x, opset=opset, kind=kind, out_kind=kind)
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        for weight in model.graph.initializer:
            if list(weight.dims) not in ([0], [4]):  # those of Resize are float32 always
                weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(dtype), weight.name))
        return model

    return build


def uint8_input(seed: int, last: bool) -> Callable[[], onnx.ModelProto]:
    """Takes RGB pixels as they are and normalizes inside."""

    def build() -> onnx.ModelProto:
        b = Builder(seed)
        x = b.add("Cast", "image", to=TensorProto.FLOAT)
        x = b.add("Div", b.add("Sub", x, b.const(110)), b.const(60))
        x = b.add("Transpose", x, perm=[0, 3, 1, 2]) if last else x
        shape = (1, HEIGHT, WIDTH, 3) if last else (1, 3, HEIGHT, WIDTH)
        return b.model(b.resize(b.body(5, x)), shape=shape, kind=TensorProto.UINT8)

    return build


def channels_input(seed: int, channels: int, last: bool) -> Callable[[], onnx.ModelProto]:
    """Takes gray or four channels."""

    def build() -> onnx.ModelProto:
        b = Builder(seed)
        x = b.add("Transpose", "image", perm=[0, 3, 1, 2]) if last else "image"
        shape = (1, HEIGHT, WIDTH, channels) if last else (1, channels, HEIGHT, WIDTH)
        return b.model(b.resize(b.body(5, x, channels)), shape=shape)

    return build


def double_input(seed: int, out: bool) -> Callable[[], onnx.ModelProto]:
    """Takes float64, and gives it where `out`; computes in float32, since no runtime convolves float64."""

    def build() -> onnx.ModelProto:
        b = Builder(seed)
        x = b.resize(b.body(5, b.add("Cast", "image", to=TensorProto.FLOAT)))
        x = b.add("Cast", x, to=TensorProto.DOUBLE) if out else x
        return b.model(x, kind=TensorProto.DOUBLE, out_kind=TensorProto.DOUBLE if out else TensorProto.FLOAT)

    return build


def shuffled(seed: int) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        model = modern(17, seed)()
        nodes = list(model.graph.node)
        np.random.default_rng(seed).shuffle(nodes)  # type: ignore[arg-type]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        return model

    return build


def batched(batch: int, seed: int) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        b = Builder(seed)
        return b.model(b.resize(b.body(5)), shape=(batch, 3, HEIGHT, WIDTH))

    return build


def with_function(seed: int, nested: bool) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        b = Builder(seed)
        opset = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        swish = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])]
        functions = [helper.make_function("own", "Swish", ["x"], ["y"], swish, opset)]
        twice = [helper.make_node("Swish", ["x"], ["z"], domain="own"), helper.make_node("Relu", ["z"], ["y"])]
        if nested:
            functions.append(helper.make_function("own", "SwishRelu", ["x"], ["y"], twice, opset))
        x = b.add("SwishRelu" if nested else "Swish", b.conv("image", 3, 8, stride=4), domain="own")
        return b.model(b.resize(b.conv(x, 8, 5, 1)), functions=functions)

    return build


def with_if(seed: int, taken: bool) -> Callable[[], onnx.ModelProto]:
    """torch's squeeze(1): an If on whether that axis has size 1."""

    def build() -> onnx.ModelProto:
        b = Builder(seed)
        x = b.add("ArgMax", b.resize(b.body(5)), axis=1, keepdims=int(taken))
        size = b.add("Gather", b.add("Shape", x), b.const(1, np.int64), axis=0)
        same = b.add("Equal", size, b.const(1, np.int64))

        def branch(node: onnx.NodeProto) -> onnx.GraphProto:
            return helper.make_graph([node], "branch", [], [onnx.ValueInfoProto(name=node.output[0])])

        squeeze = branch(helper.make_node("Squeeze", [x], ["inner_squeezed"]))
        same_again = branch(helper.make_node("Identity", [x], ["inner_same"]))
        return b.model(b.add("If", same, then_branch=squeeze, else_branch=same_again), out_kind=TensorProto.INT64)

    return build


def heads(seed: int, small_first: bool) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        b = Builder(seed)
        x = b.body(5)
        aux = b.conv(x, 5, 5, 1)
        b.resize(x)
        b.nodes[-1].output[0] = "main"
        return b.model(*((aux, "main") if small_first else ("main", aux)))

    return build  # type: ignore[return-value]


# Instances of our own, two or more of each kind
OWN = [
    *(Case(f"{kind}-{seed}", above(0.5), probability(kind, seed)) for kind in
      ("sigmoid", "clip", "hard_sigmoid", "spelled", "softmax_slice", "softmax_gather") for seed in (1, 2)),
    *(Case(f"sigmoid_255-{seed}", above(127.5), probability("sigmoid", seed, 255)) for seed in (1, 2)),
    *(Case(f"border-{seed}", above(0.7), probability(kind, seed), flags={"border": 0.7}) for seed, kind in
      enumerate(("sigmoid", "softmax_slice", "spelled", "hard_sigmoid"), 3)),
    Case("border-logit", above(0.8), lambda: (b := Builder(7)).model(b.resize(b.body(1))), flags={"border": 0.8}),
    *(Case(f"gray-{seed}", argmax(1), channels_input(seed, 1, seed == 2), flags={"color": "GRAY"}) for seed in (1, 2)),
    *(Case(f"{color.lower()}-{i}", argmax(1), channels_input(i, 4, i % 2 == 0), flags={"color": color})
      for i, color in enumerate(("RGBA", "BGRA"), 1)),
    Case("nhwc_logits-5", argmax(3), nhwc(5, 1)),
    Case("nhwc_logits-2", argmax(3), nhwc(2, 2, width=HEIGHT)),
    Case("nhwc_softmax-3", argmax(3), nhwc(3, 3, softmax=True)),
    Case("nhwc_softmax-2", argmax(3), nhwc(2, 4, softmax=True, width=HEIGHT)),
    Case("nhwc_argmax-5", ids, nhwc(5, 5, reader="argmax")),
    Case("nhwc_argmax-2", ids, nhwc(2, 6, softmax=True, reader="argmax")),
    *(Case(f"ids_{kind.replace(' ', '_')}-{seed}", ids, class_ids(kind, seed)) for kind in
      ("nearest", "int64 nearest", "nhwc", "squeezed", "mul", "greater") for seed in (1, 2)),
    Case("resize10-1", argmax(1), old(10, 1, 5)),
    Case("resize10-2", argmax(1), old(10, 2, 4)),
    Case("upsample9-1", argmax(1), old(9, 1, 4, "Upsample")),
    Case("upsample9-2", argmax(1), old(9, 2, 3, "Upsample", True)),
    Case("upsample7-1", argmax(1), old(7, 1, 3, "Upsample7", True)),
    Case("upsample7-2", argmax(1), old(8, 2, 3, "Upsample7", True)),
    Case("fp16-1", argmax(1), modern(17, 1, TensorProto.FLOAT16), floor=0.998),
    Case("fp16-2", argmax(1), modern(13, 2, TensorProto.FLOAT16, softmax=True), floor=0.998),
    Case("opset11-1", argmax(1), modern(11, 1)),
    Case("opset12-2", argmax(1), modern(12, 2, softmax=True)),
    Case("unsorted-1", argmax(1), shuffled(1)),
    Case("unsorted-2", argmax(1), shuffled(2)),
    Case("batch-2", argmax(1), batched(2, 1)),
    Case("batch-8", argmax(1), batched(8, 2)),
    Case("function-1", argmax(1), with_function(1, nested=False)),
    Case("function-2", argmax(1), with_function(2, nested=True)),
    Case("if-1", ids, with_if(1, taken=True)),
    Case("if-2", ids, with_if(2, taken=False)),
    Case("uint8-1", argmax(1), uint8_input(1, last=False)),
    Case("uint8-2", argmax(1), uint8_input(2, last=True)),
    Case("double-1", argmax(1), double_input(1, out=False)),
    Case("double-2", argmax(1), double_input(2, out=True)),
    Case("undeclared-1", argmax(1), modern(17, 1, declared=False)),
    Case("undeclared-2", argmax(1), modern(18, 2, softmax=True, declared=False)),
    Case("aux-1", argmax(1), heads(1, small_first=True), output="main"),
    Case("aux-2", argmax(1), heads(2, small_first=False), output="main"),
]  # fmt: skip


def frames(height: int, width: int, count: int = 3) -> list[NDArray[np.uint8]]:
    """Smooth random pictures, [H, W, 3] uint8 BGR."""
    random = np.random.default_rng(5)
    made = []
    for _ in range(count):
        coarse = random.uniform(-60, 315, [3, height // 16 + 1, width // 16 + 1])
        made.append(np.clip(bilinear(coarse, height, width), 0, 255).astype(np.uint8).transpose(1, 2, 0))
    return [np.ascontiguousarray(frame) for frame in made]


def input_size(path: Path) -> tuple[int, int, int, bool, Any]:
    """(batch, height, width, whether channels come last, dtype) of a file's only real input."""
    graph = onnx.load(str(path)).graph
    weights = {i.name for i in graph.initializer}
    entry = next(i for i in graph.input if i.name not in weights).type.tensor_type
    batch, *rest = (d.dim_value for d in entry.shape.dim)
    last = rest[-1] in (1, 3, 4)
    height, width = rest[:2] if last else rest[1:]
    return batch, height, width, last, helper.tensor_dtype_to_np_dtype(entry.elem_type)


def channels_of(rgb: Array, count: int, color: str) -> Array:
    """[1, H, W, count] of RGB pixels: gray as ITU-R BT.601 has it, or with opaque alpha."""
    if count == 1:
        return (rgb @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    if count == 4:
        opaque = np.full((*rgb.shape[:3], 1), 255, np.uint8)
        return np.concatenate([rgb[..., ::-1] if color == "BGRA" else rgb, opaque], 3)
    return rgb


def expected(path: Path, case: Case, pictures: list[NDArray[np.uint8]]) -> list[Array]:
    """The class maps of the untouched file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    batch, _, _, last, dtype = input_size(path)
    maps = []
    for picture in pictures:
        rgb = picture[None, ..., ::-1]
        rgb = channels_of(rgb, session.get_inputs()[0].shape[3 if last else 1], case.flags.get("color", "RGB"))
        x = rgb if dtype == np.uint8 else (rgb / np.float32(255)).astype(dtype)
        x = np.repeat(x if last else x.transpose(0, 3, 1, 2), batch, 0)
        name = case.output or session.get_outputs()[0].name
        out = session.run([name], {session.get_inputs()[0].name: np.ascontiguousarray(x)})[0]
        maps.append(case.rule(out[:1] if batch > 1 else out))
    return maps
