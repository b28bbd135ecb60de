"""Groups of ONNX nodes that mean one thing, rewritten as one node before the TFLite operators are chosen."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from edgeseg.onnx_graph.index import attribute, drop_unused


class Patterns:
    """Rewrites `model` in place. Tensors keep their names, so shapes inferred before stay true."""

    def __init__(self, model: ModelProto):
        self.model = model
        self.made_by = {name: node for node in model.graph.node for name in node.output}
        self.weights = {i.name: i for i in model.graph.initializer}
        self.uses = Counter(name for node in model.graph.node for name in node.input)
        self.uses.update(o.name for o in model.graph.output)
        self.users: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in set(node.input):
                self.users.setdefault(name, []).append(node)

    def rewrite(self) -> None:
        for node in list(self.model.graph.node):
            if node.op_type == "Erf":
                self.gelu(node)
            elif node.op_type == "InstanceNormalization":
                self.group_norm(node)
            elif node.op_type == "Sqrt":
                self.layer_norm(node)
        self.preprocessing()
        drop_unused(self.model)

    def replace(self, node: NodeProto, op: str, inputs: list[str], **attributes: Any) -> None:
        """Make `node`'s first output by another operator."""
        made = helper.make_node(op, inputs, [node.output[0]], name=node.name or node.output[0], **attributes)
        node.CopyFrom(made)

    def value(self, name: str) -> NDArray[Any] | None:
        return numpy_helper.to_array(self.weights[name]).astype(np.float64) if name in self.weights else None

    def scalar(self, node: NodeProto) -> tuple[str, float] | None:
        """(the other input, the number) of a binary node with one constant number."""
        for i in (0, 1):
            found = self.value(node.input[1 - i]) if len(node.input) == 2 else None
            if found is not None and found.size == 1:
                return node.input[i], float(found.reshape(()))
        return None

    def next(self, node: NodeProto, *ops: str) -> NodeProto | None:
        """The only user of a node's output, if it is one of `ops`."""
        users = self.users.get(node.output[0], [])
        return users[0] if users and self.uses[node.output[0]] == 1 and users[0].op_type in ops else None

    def gelu(self, erf: NodeProto) -> None:
        """x / 2 * (1 + erf(x / sqrt(2))), Hendrycks and Gimpel 2016, in the order any exporter writes it."""
        scaled = self.made_by.get(erf.input[0])
        if scaled is None or scaled.op_type not in ("Div", "Mul") or (found := self.scalar(scaled)) is None:
            return
        x, by = found
        if scaled.op_type == "Div" and scaled.input[0] != x:
            return
        if abs((1 / by if scaled.op_type == "Div" else by) - 0.5**0.5) > 1e-4:
            return
        plus = self.next(erf, "Add")
        if plus is None or (one := self.scalar(plus)) is None or abs(one[1] - 1) > 1e-6:
            return
        factors, end = 1.0, plus
        seen_x = False
        while (after := self.next(end, "Mul")) is not None and not (seen_x and factors == 0.5):
            other = next((name for name in after.input if name != end.output[0]), "")
            maker = self.made_by.get(other)
            if (number := self.value(other)) is not None and number.size == 1:
                factors *= float(number.reshape(()))
            elif other == x and not seen_x:
                seen_x = True
            elif (
                maker is not None
                and maker.op_type == "Mul"
                and not seen_x
                and (half := self.scalar(maker)) is not None
                and half[0] == x
            ):
                seen_x, factors = True, factors * half[1]
            else:
                break
            end = after
        if seen_x and abs(factors - 0.5) < 1e-6:
            self.replace(end, "Gelu", [x])

    def group_norm(self, norm: NodeProto) -> None:
        """Reshape to [N, G, -1], InstanceNormalization, Reshape back: Wu and He 2018, as torch exports it."""
        before, after = self.made_by.get(norm.input[0]), self.next(norm, "Reshape")
        scale, bias = self.value(norm.input[1]), self.value(norm.input[2])
        if before is None or before.op_type != "Reshape" or after is None or scale is None or bias is None:
            return
        if not (np.all(scale == 1) and np.all(bias == 0)):
            return
        groups, epsilon = len(scale), attribute(norm, "epsilon", 1e-5)
        self.replace(after, "GroupNorm", [before.input[0]], groups=groups, epsilon=epsilon)

    def layer_norm(self, root: NodeProto) -> None:
        """(x - mean) / sqrt(mean((x - mean)^2) + eps), Ba et al. 2016, as exporters wrote it before opset 17."""
        plus = self.made_by.get(root.input[0])
        if plus is None or plus.op_type != "Add" or (epsilon := self.scalar(plus)) is None:
            return
        variance = self.made_by.get(epsilon[0])
        square = self.made_by.get(variance.input[0]) if variance is not None else None
        divide = self.next(root, "Div")
        if variance is None or square is None or divide is None or variance.op_type != "ReduceMean":
            return
        centered = square.input[0]
        power = self.scalar(square) if square.op_type == "Pow" else None
        squares = (power is not None and power[1] == 2) or (square.op_type == "Mul" and square.input[1] == centered)
        minus, axes = self.made_by.get(centered), self._last_axis(variance)
        if not squares or minus is None or minus.op_type != "Sub" or divide.input[0] != centered or not axes:
            return
        mean = self.made_by.get(minus.input[1])
        if mean is None or mean.op_type != "ReduceMean" or mean.input[0] != minus.input[0] or not self._last_axis(mean):
            return
        self.replace(divide, "LayerNormalization", [minus.input[0]], axis=-1, epsilon=epsilon[1])

    def _last_axis(self, node: NodeProto) -> bool:
        given = self.value(node.input[1]) if len(node.input) > 1 else None
        axes = attribute(node, "axes", None) if given is None else given.tolist()
        return axes is not None and [int(a) for a in axes] == [-1] and bool(attribute(node, "keepdims", 1))

    def preprocessing(self) -> None:
        """The deploy graph's channel swap and normalization as one 1x1 Conv: a single rounding when it is quantized."""
        minus = self.made_by.get("pre_Sub")
        if minus is None or minus.op_type != "Sub" or (times := self.next(minus, "Mul")) is None:
            return
        mean, gain = self.value(minus.input[1]), self.value(times.input[1])
        if mean is None or gain is None or mean.shape != (1, 3, 1, 1) or gain.shape != (1, 3, 1, 1):
            return
        source, swap = minus.input[0], self.made_by.get(minus.input[0])
        order: NDArray[Any] | None = np.arange(3)
        if swap is not None and swap.op_type == "Gather":
            order, source = self.value(swap.input[1]), swap.input[0]
        if order is None:
            return
        weight = np.zeros((3, 3), np.float32)
        weight[np.arange(3), order.astype(int)] = gain.ravel()
        tensors = {"pre_weight": weight.reshape(3, 3, 1, 1), "pre_bias": -(mean * gain).ravel().astype(np.float32)}
        for name, array in tensors.items():
            self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        self.replace(times, "Conv", [source, *tensors], kernel_shape=[1, 1])


def rewrite(model: ModelProto) -> ModelProto:
    """A copy with every pattern rewritten."""
    copy = ModelProto()
    copy.CopyFrom(model)
    Patterns(copy).rewrite()
    return copy
