"""A Hugging Face folder (config.json, safetensors) -> ONNX with its Spec: a score of every class for every pixel."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeseg.errors import EdgesegError, FileError, OptionError, first_line
from edgeseg.files import write_bytes
from edgeseg.onnx_graph.metadata import PREPROCESSOR, hugging_face_metadata
from edgeseg.spec import Spec
from edgeseg.training.hugging_face_folder import WEIGHTS, read_config, read_model
from edgeseg.training.hugging_face_nets import Queries, Semantic, is_semantic, replace_adaptive_pooling
from edgeseg.training.onnx_export import verified_onnx

Size = tuple[int, int]
DEFAULT_SIDE = 512  # of SegFormer's and most others' checkpoints, where the folder does not say


def export_hugging_face(folder: Path, path: Path, size: Size | None = None) -> Path:
    """Write the network of a local folder as ONNX: `image` float32 [1, 3, H, W] -> `logits` [1, C, H, W].

    Semantic networks (SegFormer, UPerNet, DPT, MobileViT, ...) as they are; those that predict masks by queries
    (EoMT, Mask2Former, MaskFormer) with queries and masks folded into a score of every class. `size`: (height, width),
    by default the folder's. Nothing is downloaded and no code of the folder runs.

    OptionError for a network of another task; FileError for weights that are missing, no safetensors or do not fit.
    """
    model, spec = load(folder, size)
    try:
        with redirect_stdout(io.StringIO()):  # torch prints the whole graph where it fails
            data = verified_onnx(model, spec, str(folder))
    except torch.onnx.errors.OnnxExporterError as error:
        raise OptionError(
            f"{folder} cannot be written as ONNX: {first_line(error)}",
            "Export it by other means, and compile the ONNX.",
        ) from error
    write_bytes(path, data)
    return path


def load(folder: Path, size: Size | None = None) -> tuple[nn.Module, Spec]:
    """The network that maps a normalized image to logits at its size, and its Spec."""
    config = read_config(folder)
    spec = _spec(folder, config, size)
    model = read_model(folder, config)
    replace_adaptive_pooling(model)
    adapter = Semantic(model) if is_semantic(config) else Queries(model)
    return adapter.eval(), _checked(adapter, spec, folder)


def _spec(folder: Path, config: Any, size: Size | None) -> Spec:
    known = hugging_face_metadata(folder / WEIGHTS[0])
    if known is None:
        raise FileError(
            f"{folder} has no {PREPROCESSOR}, which says how frames are normalized.",
            "Save the image processor beside the model, with its save_pretrained.",
        )
    side = getattr(config, "image_size", None)
    fixed = (side, side) if isinstance(side, int) and config.model_type.startswith(("eomt", "beit", "dpt")) else None
    height, width = size or fixed or known.size or (DEFAULT_SIDE, DEFAULT_SIDE)
    classes = known.classes or tuple(f"class {i}" for i in range(config.num_labels))
    return Spec.from_dict({**known.to_spec(), "height": height, "width": width, "classes": classes})


def _checked(model: nn.Module, spec: Spec, folder: Path) -> Spec:
    """`spec`, if the network takes its size and has its classes."""
    try:
        with torch.inference_mode():
            count = model(torch.zeros(1, 3, spec.height, spec.width)).shape[1]
    except (RuntimeError, ValueError) as error:
        raise OptionError(
            f"{folder} does not take {spec.width}x{spec.height}: {first_line(error)}", "Leave out --input-size."
        ) from error
    if count != len(spec.classes):
        raise EdgesegError(
            f"{folder} has {count} outputs and {len(spec.classes)} names in id2label of config.json.",
            "Expected as many; correct id2label.",
        )
    return spec
