"""x / 2 * (1 + erf(x / sqrt(2))), Hendrycks and Gimpel 2016, in the order any exporter writes it -> Gelu."""

from __future__ import annotations

from onnx import NodeProto, helper

from edgeseg.onnx_graph.index import GraphIndex


def fuse_gelu(index: GraphIndex, erf: NodeProto) -> None:
    """Replace the last Mul of the group around an Erf; nothing where it is something else."""
    x = _erf_argument(index, erf)
    plus = index.sole_consumer(erf.output[0], "Add")
    if not x or plus is None or (one := index.scalar_operand(plus)) is None or abs(one[1] - 1) > 1e-6:
        return
    factor, last, has_x = 1.0, plus, False
    while (after := index.sole_consumer(last.output[0], "Mul")) is not None and not (has_x and factor == 0.5):
        other = next((name for name in after.input if name != last.output[0]), "")
        number, product = index.scalar_operand(after), index.producer(other, "Mul")
        if number is not None:
            factor *= number[1]
        elif has_x:
            break
        elif other == x:
            has_x = True
        elif product is not None and (part := index.scalar_operand(product)) is not None and part[0] == x:
            has_x, factor = True, factor * part[1]
        else:
            break
        last = after
    if has_x and abs(factor - 0.5) < 1e-6:
        index.replace(last, [helper.make_node("Gelu", [x], last.output, last.name or last.output[0])])


def _erf_argument(index: GraphIndex, erf: NodeProto) -> str:
    """x of erf(x / sqrt(2)), else ""."""
    scaled = index.producer(erf.input[0], "Div", "Mul")
    if scaled is None or (operand := index.scalar_operand(scaled)) is None:
        return ""
    x, number = operand
    if scaled.op_type == "Div" and scaled.input[0] != x:
        return ""
    return x if abs((1 / number if scaled.op_type == "Div" else number) - 0.5**0.5) <= 1e-4 else ""
