"""Latency: what layers and whole nets take on a target, through the backend that ships; kept in a file and read again.

FILE (JSON)   {machine, target, precision, layers: {LAYER: ms}, nets: {KEY: what was measured}}

A layer is timed inside a small net (two convolutions before it; of what it makes one position is returned), and that
net without the layer is taken off. What a runtime pays to enter and leave a net, and what it converts there, is thus
not the layer's. The fastest of many runs counts: other programs only ever add.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeseg import backends
from edgeseg.bundle import Bundle, Manifest, seal
from edgeseg.errors import OptionError
from edgeseg.files import write_bytes
from edgeseg.machine import fingerprint
from edgeseg.precision import Precision
from edgeseg.quantization import schemes
from edgeseg.quantization.quantize import quantize
from edgeseg.recipe import Recipe
from edgeseg.segmenter import Engine
from edgeseg.spec import Spec
from edgeseg.target import Target, split

if TYPE_CHECKING:
    from onnx import ModelProto

RUNS = 6  # of a net in one go
PAIRS = 30  # of such goes, when two nets race
CALM = 0.4  # seconds without a faster run end the timing of a layer; so do
SECONDS = 4.0  # in all
Pair = tuple[int, int]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layer:
    """A convolution: [1, inputs, *size] -> [1, outputs, *out]; a linear layer is one of kernel 1 on its rows."""

    inputs: int
    outputs: int
    size: Pair
    out: Pair
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    groups: int = 1
    transposed: bool = False

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one frame."""
        places = math.prod(self.size if self.transposed else self.out)
        return self.inputs * self.outputs // self.groups * math.prod(self.kernel) * places

    @property
    def depthwise(self) -> bool:
        return 1 < self.groups == self.inputs == self.outputs

    def widths(self, inputs: int, outputs: int) -> Layer:
        """The same layer with other channels; a depthwise one stays depthwise."""
        groups = outputs if self.depthwise else self.groups
        return replace(self, inputs=groups if self.depthwise else inputs, outputs=outputs, groups=groups)

    def __str__(self) -> str:
        pairs = [f"{a}x{b}" for a, b in (self.kernel, self.stride, self.dilation, self.size, self.out)]
        kind = "transposed" if self.transposed else "conv"
        return f"{kind} {self.inputs}>{self.outputs} k{pairs[0]} s{pairs[1]} d{pairs[2]} g{self.groups} " + ">".join(
            pairs[3:]
        )


class Table:
    """Milliseconds of layers and measured nets, of one target and precision on this machine.

    Channels lie on a grid of two steps an octave, multiples of `round_to`; between them it interpolates. What the file
    lacks is measured when it is asked for. A file of another machine, other versions, target or precision is not used.
    """

    def __init__(self, path: Path, target: Target, precision: Precision, round_to: int = 8):
        self.path, self.target, self.precision, self.round_to = path, target, precision, round_to
        self.about = {"machine": asdict(fingerprint()), "target": target.name, "precision": precision}
        self.layers: dict[str, float] = {}
        self.nets: dict[str, Any] = {}
        self._known: dict[Layer, float] = {}
        if path.is_file():
            stored = json.loads(path.read_text())
            if {key: stored.get(key) for key in self.about} == self.about:
                self.layers, self.nets = stored["layers"], stored["nets"]
            else:
                log.info("%s is of another machine, version or target: measuring again.", path)

    def ms(self, layer: Layer) -> float:
        """Milliseconds of one layer; bilinear in its channels between the four points of the grid around them."""
        if layer not in self._known:
            step = math.lcm(self.round_to, 1 if layer.depthwise else layer.groups)
            outputs = around(layer.outputs, step)
            inputs = [(layer.inputs, 1.0)] if layer.depthwise else around(layer.inputs, step)
            self._known[layer] = sum(
                a * b * self._at(layer.widths(i, o)) for i, a in inputs for o, b in outputs if a * b
            )
        return self._known[layer]

    def share(self, key: str, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """What `measure` found of the net called `key`, now or before."""
        if key not in self.nets:
            self.nets[key] = measure()
            self._save()
        found: dict[str, float] = self.nets[key]
        return found

    def _at(self, layer: Layer) -> float:
        name = str(layer)
        if name not in self.layers:
            self.layers[name] = time_layer(layer, self.target, self.precision)
            self._save()
        return self.layers[name]

    def _save(self) -> None:
        data = {**self.about, "layers": self.layers, "nets": self.nets}
        write_bytes(self.path, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())


@cache
def around(channels: int, step: int) -> list[tuple[int, float]]:
    """The grid's neighbors of a number of channels and their weights; below the first step it stands for itself."""
    if channels <= step:
        return [(channels, 1.0)]
    power = step << ((channels // step).bit_length() - 1)
    half = power + power // 2 if (power // 2) % step == 0 else power
    low, high = (half, 2 * power) if channels >= half else (power, half)
    if low == high:
        high = 2 * power
    share = (channels - low) / (high - low)
    return [(low, 1 - share), (high, share)]


def key_of(*nets: Iterable[Layer]) -> str:
    """A digest of the layers of some nets."""
    text = json.dumps([sorted(map(str, layers)) for layers in nets])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def timing_target(recipe: Recipe) -> tuple[Target, Precision]:
    """What a recipe's nets are timed on: its first target, in int8 where it is compiled for that."""
    if not recipe.targets.compile:
        raise OptionError("The recipe names no target to be fast on.", "Name one: [targets] compile = [...].")
    pairs = [split(entry) for entry in recipe.targets.compile]
    target = pairs[0][0]
    precisions = [precision for other, precision in pairs if other.name == target.name]
    return target, Precision.INT8 if Precision.INT8 in precisions else precisions[0]


def unavailable_reason(target: Target) -> str:
    """Why nets cannot be timed on this target here, or ""."""
    if target.build_mode:
        return f"{target.name} builds its engines on the board"
    return backends.missing(target)


# Timing


def time_layer(layer: Layer, target: Target, precision: Precision) -> float:
    """Milliseconds that `layer` adds to a net."""
    scheme = schemes.get(target.quantizer).layer_scheme or target.quantizer
    nets = (_holder(layer, there) for there in (True, False))
    first, second = (opened(net, target, precision, scheme) for net in nets)
    with first as with_it, second as without:
        best = [math.inf, math.inf]
        begin = last = now = time.perf_counter()
        while now - last < CALM and now - begin < SECONDS:
            found = [min(_runs(engine)) for engine in (with_it, without)]
            now = time.perf_counter()
            last = now if any(new < 0.99 * old for new, old in zip(found, best)) else last
            best = [min(new, old) for new, old in zip(found, best)]
    return round(max(0.0, best[0] - best[1]), 5)


def race(parent: ModelProto, child: ModelProto, target: Target, precision: Precision) -> dict[str, float]:
    """Two deploy graphs in turns: {parent_ms, ms, share, low}.

    The medians of each and of ms / parent_ms pair by pair; nine of ten pairs lie above `low`, so where that is over 1
    the child is slower for sure.
    """
    first, second = (opened(net, target, precision, target.quantizer) for net in (parent, child))
    with first as one, second as two:
        pairs = []
        for number in range(PAIRS):  # who runs first takes turns, too
            order = (one, two) if number % 2 else (two, one)
            times = {id(engine): statistics.median(_runs(engine)) for engine in order}
            pairs.append((times[id(one)], times[id(two)]))
    shares = sorted(b / a for a, b in pairs)
    found = {
        "parent_ms": statistics.median(a for a, _ in pairs),
        "ms": statistics.median(b for _, b in pairs),
        "share": statistics.median(shares),
        "low": shares[len(shares) // 10],
    }
    return {name: round(value, 4) for name, value in found.items()}


def _runs(engine: Engine) -> list[float]:
    """Milliseconds of some runs, after one that is not counted: another engine's threads may still be spinning."""
    times = []
    for _ in range(RUNS + 1):
        begin = time.perf_counter()
        engine.start(0)
        engine.wait(0)
        times.append(1e3 * (time.perf_counter() - begin))
    return times[1:]


@contextmanager
def opened(graph: ModelProto, target: Target, precision: Precision, scheme: str) -> Iterator[Engine]:
    """A deploy graph as the target's engine in latency mode. INT8 ranges come from noise: speed does not see them."""
    backend = backends.get(target.backend)
    shape = [d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim]
    noise = np.random.default_rng(0).integers(0, 256, shape[1:], np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = work / "deploy.onnx"
        source.write_bytes(graph.SerializeToString())
        if precision.is_int8:
            with _silent():
                source = quantize(source, [noise], scheme, work, target.preset if scheme == target.quantizer else "")
        backend.compile(source, work, target, precision)
        spec = Spec(8, 8, ("any", "other"))  # an engine does not look at it
        seal(work, Manifest(name="layer", spec=spec, target=target.name, backend=target.backend, precision=precision,
                            upsample="half_pixel", files={}))  # fmt: skip
        engine: Engine = backend.open(Bundle.load(work), "latency")
        try:
            engine.inputs(0)["frame"][:] = noise
            yield engine
        finally:
            engine.close()


@contextmanager
def _silent() -> Iterator[None]:
    """Without the advice that ONNX Runtime's quantizer gives through the root logger, hundreds of times here."""

    def refuse(record: logging.LogRecord) -> bool:
        return False

    root = logging.getLogger()
    root.addFilter(refuse)
    try:
        yield
    finally:
        root.removeFilter(refuse)


def _holder(layer: Layer, there: bool) -> ModelProto:
    """The net that a layer is timed in, and the same without it."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    nodes: list[Any] = []
    weights: list[Any] = []
    outputs = layer.outputs if there else layer.inputs

    def conv(op: str, entry: str, name: str, shape: tuple[int, ...], outputs: int, **attributes: Any) -> str:
        values = {"weight": random.normal(0, 0.1, shape), "bias": random.normal(0, 0.1, outputs)}
        weights.extend(numpy_helper.from_array(v.astype(np.float32), f"{name}_{k}") for k, v in values.items())
        given = [entry, f"{name}_weight", f"{name}_bias"]
        nodes.append(helper.make_node(op, given, [f"{name}_sum"], name=f"{name}_conv", **attributes))
        nodes.append(helper.make_node("Relu", [f"{name}_sum"], [name], name=name))
        return name

    nodes.append(helper.make_node("Cast", ["frame"], ["pre_float"], to=TensorProto.FLOAT, name="pre_float"))
    nodes.append(helper.make_node("Transpose", ["pre_float"], ["pre_nchw"], perm=[0, 3, 1, 2], name="pre_nchw"))
    x = conv("Conv", "pre_nchw", "entry", (layer.inputs, 3, 3, 3), layer.inputs, pads=[1] * 4)
    x = conv("Conv", x, "before", (layer.inputs, layer.inputs, 1, 1), layer.inputs)
    if there:
        op, shape, more = _operator(layer)
        x = conv(op, x, "layer", shape, layer.outputs, group=layer.groups, **more)
    corner = {"starts": [0, 0], "ends": [1, 1], "axes": [2, 3]}
    weights.extend(numpy_helper.from_array(np.array(v), name) for name, v in corner.items())
    nodes.append(helper.make_node("Slice", [x, *corner], ["corner"], name="corner"))
    nodes.append(helper.make_node("Cast", ["corner"], ["logits"], to=TensorProto.FLOAT, name="logits"))
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, *layer.size, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, outputs, 1, 1])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _operator(layer: Layer) -> tuple[str, tuple[int, ...], dict[str, Any]]:
    """ONNX's operator, the shape of its weights and its attributes, with the padding that leads from size to out."""
    sides = list(zip(layer.size, layer.out, layer.kernel, layer.stride, layer.dilation))
    more: dict[str, Any] = {"strides": list(layer.stride), "dilations": list(layer.dilation)}
    if layer.transposed:
        extra = [(a - 1) * s + d * (k - 1) + 1 - b for a, b, k, s, d in sides]
        more["output_padding"] = [max(0, -e) for e in extra]
        shape = (layer.inputs, layer.outputs // layer.groups, *layer.kernel)
    else:
        extra = [(b - 1) * s + d * (k - 1) + 1 - a for a, b, k, s, d in sides]
        shape = (layer.outputs, layer.inputs // layer.groups, *layer.kernel)
    pads = [max(0, e) for e in extra]
    more["pads"] = [*(p // 2 for p in pads), *(p - p // 2 for p in pads)]
    return "ConvTranspose" if layer.transposed else "Conv", shape, more
