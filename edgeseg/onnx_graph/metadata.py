"""What an exporter wrote about a network into its ONNX file, as keys of the Spec."""

from __future__ import annotations

import ast
from typing import Any

from onnx import ModelProto

from edgeseg.errors import OptionError

SEMANTIC_TASKS = ("semantic", "sem")


def exporter_metadata(model: ModelProto) -> dict[str, Any]:
    """Spec keys from the metadata of Ultralytics (names, task, imgsz); {} for a file without them.

    Its networks take RGB / 255. OptionError for one whose task is not semantic segmentation.
    """
    found = {entry.key: entry.value for entry in model.metadata_props}
    if not {"names", "task", "stride"} <= found.keys():
        return {}
    if found["task"] not in SEMANTIC_TASKS:
        raise OptionError(
            f"The model is an Ultralytics network for the task {found['task']!r:.40}.",
            "Expected semantic segmentation, scores for every pixel: export a model of the task 'semantic'.",
        )
    spec: dict[str, Any] = {"color": "RGB", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    names = _literal(found["names"])
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names)]
    if isinstance(names, list) and len(names) > 1:
        spec["classes"] = tuple(str(name) for name in names)
    size = _literal(found.get("imgsz", ""))
    if isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(side, int) for side in size):
        spec["height"], spec["width"] = size
    return spec


def _literal(text: str) -> Any:
    """The Python value that a text spells, else None."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
