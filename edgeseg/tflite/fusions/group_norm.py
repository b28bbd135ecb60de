"""Reshape to [N, G, -1], InstanceNormalization, Reshape back: Wu and He 2018, as torch exports it -> GroupNorm."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from edgeseg.onnx_graph.index import GraphIndex, attribute


def fuse_group_norm(index: GraphIndex, norm: NodeProto) -> None:
    """Replace the second Reshape around an InstanceNormalization without weights of its own."""
    before, after = index.producer(norm.input[0], "Reshape"), index.sole_consumer(norm.output[0], "Reshape")
    scale, bias = index.constant_input(norm, 1), index.constant_input(norm, 2)
    if before is None or after is None or scale is None or bias is None or np.any(scale != 1) or np.any(bias != 0):
        return
    attributes = {"groups": len(scale), "epsilon": attribute(norm, "epsilon", 1e-5)}
    name = after.name or after.output[0]
    index.replace(after, [helper.make_node("GroupNorm", before.input[:1], after.output, name, **attributes)])
