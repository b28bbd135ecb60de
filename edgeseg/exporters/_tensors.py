"""The inputs and outputs of a bundle's model file, as its own runtime names them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, MissingPackage, first_line


@dataclass(frozen=True)
class Tensor:
    """`shape`: with the batch axis, which is 1."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


Tensors = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
"""Inputs and outputs."""


def of_onnx(bundle: Bundle) -> Tensors:
    """Of model.onnx. BundleError for one that cannot be read or whose shapes are not fixed."""
    model = load_onnx(bundle)
    from onnx import helper

    def tensors(values: Iterable[Any]) -> tuple[Tensor, ...]:
        found = []
        for value in values:
            kind = value.type.tensor_type
            shape = tuple(int(size.dim_value) for size in kind.shape.dim)
            found.append(Tensor(value.name, np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)), shape))
        return tuple(found)

    return _fixed(bundle, (tensors(model.graph.input), tensors(model.graph.output)))


def load_onnx(bundle: Bundle) -> Any:
    """model.onnx of a bundle as a ModelProto."""
    try:
        import onnx
    except ImportError as error:
        raise MissingPackage("onnx", "Exporting this bundle", "compress") from error
    try:
        return onnx.load_from_string(bundle.read("model.onnx"))
    except Exception as error:  # protobuf's exceptions share no public base class
        raise BundleError(
            f"The model of {bundle.path} cannot be read: {first_line(error)}.", "Compile the bundle again."
        ) from error


def of_openvino(bundle: Bundle) -> Tensors:
    """Of model.xml and model.bin. Where a tensor has several names, the one that OpenVINO itself prefers."""
    try:
        import openvino as ov
    except ImportError as error:
        raise MissingPackage("openvino", "Exporting this bundle", "openvino") from error
    try:
        model = ov.Core().read_model(bundle.read("model.xml"), bundle.read("model.bin"))
        sides = [
            tuple(Tensor(p.get_any_name(), np.dtype(p.get_element_type().to_dtype()), tuple(p.shape)) for p in ports)
            for ports in (model.inputs, model.outputs)
        ]
    except (RuntimeError, ValueError) as error:
        raise BundleError(
            f"The model of {bundle.path} cannot be read: {first_line(error)}.", "Compile the bundle again."
        ) from error
    return _fixed(bundle, (sides[0], sides[1]))


def _fixed(bundle: Bundle, tensors: Tensors) -> Tensors:
    for tensor in (*tensors[0], *tensors[1]):
        if not tensor.shape or min(tensor.shape) < 1:
            raise BundleError(
                f"The model of {bundle.path} has a tensor {tensor.name} of the shape {list(tensor.shape)}.",
                "Expected fixed sizes, as edgeseg compile writes them.",
            )
    return tensors
