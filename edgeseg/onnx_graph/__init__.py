"""Surgery on ONNX graphs: any trained network in, the deploy graph out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeseg.errors import MissingPackage

if TYPE_CHECKING:
    from edgeseg.onnx_graph.deploy import (
        DeployGraph,
        count,
        deploy_graph,
        half_weights,
        image_input,
        is_quantized,
        is_symmetric,
        layers,
        load,
        output_channels,
        require_layers,
        simplify,
        store_whole,
    )
    from edgeseg.onnx_graph.fold import static_shapes

__all__ = [
    "DeployGraph",
    "count",
    "deploy_graph",
    "half_weights",
    "image_input",
    "is_quantized",
    "is_symmetric",
    "layers",
    "load",
    "output_channels",
    "require_layers",
    "simplify",
    "static_shapes",
    "store_whole",
]


def __getattr__(name: str) -> Any:
    """The names of __all__, imported on first use: onnx is an optional package."""
    if name not in __all__:
        raise AttributeError(f"module 'edgeseg.onnx_graph' has no attribute {name!r}")
    try:
        from edgeseg.onnx_graph import deploy
    except ImportError as error:
        raise MissingPackage("onnx", "Compiling a model", "compress") from error
    return getattr(deploy, name)
