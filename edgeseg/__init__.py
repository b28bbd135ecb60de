"""edgeseg: image segmentation from labeled frames to a camera on an edge device, verified at every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeseg.bundle import Bundle
    from edgeseg.compile import compile_model
    from edgeseg.data.dataset import Dataset
    from edgeseg.errors import EdgesegError
    from edgeseg.evaluation.evaluate import evaluate
    from edgeseg.recipe import Recipe
    from edgeseg.result import Frame, Polygon, Result
    from edgeseg.runtime import open_segmenter
    from edgeseg.segmenter import Segmenter
    from edgeseg.serving.client import Client
    from edgeseg.spec import Spec
    from edgeseg.synth.street import Street
    from edgeseg.target import Target

# Where each public name lives; imported on first use, so that `import edgeseg` costs nothing on a device.
_MODULES = {
    "Bundle": "bundle",
    "Client": "serving.client",
    "Dataset": "data.dataset",
    "EdgesegError": "errors",
    "Frame": "result",
    "Polygon": "result",
    "Recipe": "recipe",
    "Result": "result",
    "Segmenter": "segmenter",
    "Spec": "spec",
    "Street": "synth.street",
    "Target": "target",
    "compile_model": "compile",
    "evaluate": "evaluation.evaluate",
    "open_segmenter": "runtime",
}

__version__ = "0.2.0"

__all__ = [
    "Bundle",
    "Client",
    "Dataset",
    "EdgesegError",
    "Frame",
    "Polygon",
    "Recipe",
    "Result",
    "Segmenter",
    "Spec",
    "Street",
    "Target",
    "__version__",
    "compile_model",
    "evaluate",
    "open_segmenter",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'edgeseg' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"edgeseg.{_MODULES[name]}"), name)
