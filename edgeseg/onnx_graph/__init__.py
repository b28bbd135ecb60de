"""Surgery on ONNX graphs: any trained network in, the deploy graph out.

index.py             who makes and who reads each tensor          loading.py      a file -> a static, folded graph
formats.py           files that are not ONNX                      modernize.py    unusual exports -> current ones
fold_constants.py, fold_if.py, fold_batchnorm.py, single_precision.py             one rewrite each
unstack.py, swap_upsample_conv.py                                                 likewise, exact
outputs.py, axes.py  which output, and what its axes are          head.py         from the output back to the logits
threshold.py         one channel, however it was made             class_ids.py    class ids, back to their scores
preprocessing.py     normalization inside                         metadata.py     what the exporter wrote: exporter.py
model_info.py, tflite_metadata.py                                 of OpenVINO and TFLite
quantized.py, half_precision.py, layer_names.py                   questions and small changes
deploy.py            all of that in order
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeseg.errors import MissingPackage

if TYPE_CHECKING:
    from edgeseg.onnx_graph.deploy import DeployGraph, deploy_graph
    from edgeseg.onnx_graph.half_precision import half_weights, has_half_weights
    from edgeseg.onnx_graph.head import OutputKind, output_kind
    from edgeseg.onnx_graph.index import GraphIndex, operator_counts, static_shapes
    from edgeseg.onnx_graph.layer_names import layers, require_layers
    from edgeseg.onnx_graph.loading import digest, image_input, load, simplify
    from edgeseg.onnx_graph.metadata import exporter_metadata, metadata_beside
    from edgeseg.onnx_graph.quantized import is_quantized, is_symmetric, store_integer_weights

__all__ = [
    "DeployGraph",
    "GraphIndex",
    "OutputKind",
    "deploy_graph",
    "digest",
    "exporter_metadata",
    "half_weights",
    "has_half_weights",
    "image_input",
    "is_quantized",
    "is_symmetric",
    "layers",
    "load",
    "metadata_beside",
    "operator_counts",
    "output_kind",
    "require_layers",
    "simplify",
    "static_shapes",
    "store_integer_weights",
]
_MODULES = ("deploy", "half_precision", "head", "index", "layer_names", "loading", "metadata", "quantized")


def __getattr__(name: str) -> Any:
    """The names of __all__, imported on first use: onnx is an optional package."""
    if name not in __all__:
        raise AttributeError(f"module 'edgeseg.onnx_graph' has no attribute {name!r}")
    try:
        modules = [import_module(f"edgeseg.onnx_graph.{module}") for module in _MODULES]
    except ImportError as error:
        raise MissingPackage("onnx", "Compiling a model", "compress") from error
    return next(getattr(module, name) for module in modules if hasattr(module, name))
