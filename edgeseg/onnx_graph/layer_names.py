"""The layers of a deploy graph: the nodes that INT8 makes faster, and that a user may exclude from it by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from onnx import ModelProto, NodeProto

from edgeseg.errors import OptionError

# Convolutions, matrix products, sums and gates.
LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm", "Add", "Mul")


def layers(model: ModelProto) -> list[NodeProto]:
    """The nodes of a deploy graph that may be INT8 or stay float, in its order; not the preprocessing."""
    weights = {i.name for i in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type in LAYERS
        and not node.name.startswith("pre_")
        and (node.op_type not in ("Add", "Mul") or not weights & set(node.input))
    ]


def require_layers(model: ModelProto, names: Iterable[str]) -> None:
    """OptionError for a name that is no layer of this deploy graph."""
    known = [node.name for node in layers(model)]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
            start = f"Did you mean {close[0]!r}? " if close else ""
            raise OptionError(
                f"The network has no layer {name!r}.",
                f"{start}edgeseg sensitivity MODEL --calibration FRAMES lists its {len(known)} layers.",
            )
