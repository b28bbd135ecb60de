"""Finding: what TensorRT would refuse or not run as meant, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import NodeProto


@dataclass(frozen=True)
class Finding:
    """`rule` broken at `node`. `fatal`: TensorRT refuses the graph or reads it wrongly; else it runs it in float."""

    node: str
    rule: str
    problem: str
    advice: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.node}: {self.problem}. {self.advice}."


def label(node: NodeProto) -> str:
    """The operator and name that findings give a node."""
    return f"{node.op_type} {node.name or node.output[0]}"
