"""What an exporter wrote about a network into its ONNX file, as keys of the Spec."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto

from edgeseg.errors import OptionError

SEMANTIC_TASKS = ("semantic", "sem")


@dataclass(frozen=True)
class ExporterMetadata:
    """`classes`: their names in the order of their ids; `size`: (height, width) in pixels. None: it does not say."""

    classes: tuple[str, ...] | None
    size: tuple[int, int] | None

    def to_spec(self) -> dict[str, object]:
        """The keys of the Spec but for the size: these networks take RGB / 255."""
        spec: dict[str, object] = {"color": "RGB", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
        return {**spec, "classes": self.classes} if self.classes else spec


def exporter_metadata(model: ModelProto) -> ExporterMetadata | None:
    """The metadata of Ultralytics (names, task, imgsz); None for a file without them.

    OptionError for one whose task is not semantic segmentation.
    """
    found = {entry.key: entry.value for entry in model.metadata_props}
    if not {"names", "task", "stride"} <= found.keys():
        return None
    if found["task"] not in SEMANTIC_TASKS:
        raise OptionError(
            f"The model is an Ultralytics network for the task {found['task']!r:.40}.",
            "Expected semantic segmentation, scores for every pixel: export a model of the task 'semantic'.",
        )
    names = _literal(found["names"])
    if isinstance(names, dict) and all(isinstance(key, int) for key in names):
        names = [names[key] for key in sorted(names)]
    classes = tuple(str(name) for name in names) if isinstance(names, list) and len(names) > 1 else None
    size = _literal(found.get("imgsz", ""))
    pair = isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(side, int) for side in size)
    return ExporterMetadata(classes, (size[0], size[1]) if pair else None)


def _literal(text: str) -> Any:
    """The Python value that a text spells, else None."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
