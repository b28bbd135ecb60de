"""What an exporter wrote about a network into its ONNX file, as keys of the Spec."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from onnx import ModelProto

from edgeseg.errors import FileError, OptionError
from edgeseg.files import write_bytes
from edgeseg.onnx_graph import model_info, tflite_metadata
from edgeseg.onnx_graph.exporter import ExporterMetadata
from edgeseg.onnx_graph.loading import load
from edgeseg.records import parse_json
from edgeseg.spec import ONNX_KEY, Spec

SEMANTIC_TASKS = ("semantic", "sem")
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
MAX_JSON = 4 << 20


def exporter_metadata(model: ModelProto) -> ExporterMetadata | None:
    """What an ONNX file says itself: the metadata of Ultralytics (names, task, imgsz), whose frames are letterboxed, or
    OpenVINO's model_info; None for a file without them.

    OptionError for one whose task is not semantic segmentation.
    """
    # What is no UTF-8 comes as bytes; nothing that is looked for is.
    texts = ((entry.key, entry.value) for entry in model.metadata_props)
    found = {key: value for key, value in texts if isinstance(key, str) and isinstance(value, str)}
    if not {"names", "task", "stride"} <= found.keys():
        return model_info.of_properties(found)
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
    return ExporterMetadata(classes, (size[0], size[1]) if pair else None, "letterbox")


def hugging_face_metadata(model: Path) -> ExporterMetadata | None:
    """What a Hugging Face folder says beside its ONNX file, in config.json (id2label) and preprocessor_config.json
    (image_mean, image_std, size, do_flip_channel_order), there or a folder above; None where the second is absent.

    FileError for files that cannot be read.
    """
    folder = next((f for f in (model.parent, model.parent.parent) if (f / PREPROCESSOR).is_file()), None)
    if folder is None:
        return None
    settings = _table(folder / PREPROCESSOR)
    labels = _table(folder / CONFIG).get("id2label") if (folder / CONFIG).is_file() else None
    names = _in_order(labels)
    scale = 1.0 if settings.get("do_rescale", True) else 1 / 255  # ours divides by 255 in any case
    normalized = settings.get("do_normalize", True)
    mean, std = (_three(settings.get(f"image_{key}")) if normalized else None for key in ("mean", "std"))
    return ExporterMetadata(
        tuple(map(str, names)) if len(names) > 1 else None,
        _size(settings.get("size")),
        "stretch",
        tuple(v * scale for v in mean or (0.0, 0.0, 0.0)),
        tuple(v * scale for v in std or (1.0, 1.0, 1.0)),
        "BGR" if settings.get("do_flip_channel_order") is True else "RGB",
    )


def metadata_beside(model: Path) -> ExporterMetadata | None:
    """What is said beside an ONNX file: in the files of a Hugging Face folder, or in the OpenVINO IR or the TFLite file
    of the same name, from which it was converted."""
    found = hugging_face_metadata(model)
    if found is None and (ir := model.with_suffix(".xml")).is_file():
        found = model_info.of_ir(ir)
    if found is None and (lite := model.with_suffix(".tflite")).is_file():
        found = tflite_metadata.of_tflite(lite)
    return found


def with_spec(model: Path, spec: Spec, path: Path) -> Path:
    """Write a copy of an ONNX file that carries `spec`; FileError for one that cannot be read."""
    loaded = load(model)
    set_spec(loaded, spec)
    write_bytes(path, loaded.SerializeToString())
    return path


def set_spec(model: ModelProto, spec: Spec) -> None:
    """Store `spec` in the metadata, in place of the one that is there."""
    others = [entry for entry in model.metadata_props if entry.key != ONNX_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(others)
    model.metadata_props.add(key=ONNX_KEY, value=json.dumps(spec.to_dict()))


def _table(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON:
            raise ValueError(f"over {MAX_JSON >> 20} MiB")
        found = parse_json(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path} cannot be read: {error}.", "Copy it again, or move it away from the model.") from error
    return found if isinstance(found, dict) else {}


def _in_order(labels: Any) -> list[Any]:
    """The values of `{"0": name, ...}`; none for anything else."""
    if not isinstance(labels, dict) or not all(isinstance(key, str) and key.isdecimal() for key in labels):
        return []
    return [labels[key] for key in sorted(labels, key=int)]


def _three(values: Any) -> list[float] | None:
    right = isinstance(values, list) and len(values) == 3 and all(isinstance(v, (int, float)) for v in values)
    return [float(v) for v in values] if right else None


def _size(size: Any) -> tuple[int, int] | None:
    """Of `{"height": h, "width": w}`, or of one number for both."""
    sides = (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
    height, width = sides
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _literal(text: str) -> Any:
    """The Python value that a text spells, else None."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
