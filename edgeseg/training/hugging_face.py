"""A Hugging Face folder (config.json, safetensors) -> ONNX with its Spec: a score of every class for every pixel."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.errors import EdgesegError, FileError, MissingPackage, OptionError, first_line
from edgeseg.files import write_bytes
from edgeseg.onnx_graph.metadata import CONFIG, PREPROCESSOR, hugging_face_metadata
from edgeseg.spec import Spec
from edgeseg.training.blocks import GridPool
from edgeseg.training.onnx_export import verified_onnx

Size = tuple[int, int]
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
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
    try:
        import transformers
        from transformers import AutoConfig
        from transformers.models.auto import modeling_auto as known
    except ImportError as error:
        raise MissingPackage("transformers", f"Reading the Hugging Face folder {folder}", "transformers") from error
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise FileError(
            f"{folder} has no {WEIGHTS[0]}.",
            "Expected safetensors; other weights are pickles, which may run code: convert them if you trust them.",
        )
    logs: Any = transformers.logging
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises what its parsers do
        raise FileError(
            f"{folder / CONFIG} cannot be used: {first_line(error)}", "Expected what save_pretrained wrote."
        ) from error
    semantic, universal = (
        dict(mapping)
        for mapping in (
            known.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
            known.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES,
        )
    )
    name = (semantic | universal).get(config.model_type, "")
    if not name or name not in (config.architectures or [name]):
        raise OptionError(
            f"{folder} holds {', '.join(config.architectures or [config.model_type])}, not a segmentation network.",
            f"Expected one of: {', '.join(sorted({*semantic.values(), *universal.values()}))}.",
        )
    spec = _spec(folder, config, size)
    model = _with_weights(getattr(transformers, name), folder, config)
    _replace_adaptive_pooling(model)
    adapter = Semantic(model) if config.model_type in semantic else Queries(model)
    return adapter.eval(), _checked(adapter, spec, folder)


class Semantic(nn.Module):
    """Logits [1, C, h, w] of a network of transformers, resized to the image's size."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return _resized(self.model(pixel_values=image).logits, image)


class Queries(nn.Module):
    """Scores [1, C, H, W] of a network that predicts a class and a mask for each of Q queries.

    The sum over the queries of P(class) x P(mask), Cheng et al. 2021 (arXiv 2107.06278), equation 2, at the masks' own
    size, then resized.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        found = self.model(pixel_values=image)
        classes = found.class_queries_logits.softmax(-1)[..., :-1]  # the last one is "no object"
        masks = found.masks_queries_logits.sigmoid()
        height, width = masks.shape[-2:]
        scores = classes.transpose(1, 2) @ masks.flatten(2)
        return _resized(scores.reshape(1, -1, height, width), image)


def _replace_adaptive_pooling(model: nn.Module) -> None:
    """In place: some networks hold these modules in plain lists, too."""
    for module in model.modules():
        side = module.output_size if isinstance(module, nn.AdaptiveAvgPool2d) else None
        if isinstance(side, int) and side > 1:
            module.forward = GridPool(side).forward


def _resized(logits: Tensor, image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    return functional.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)


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


def _with_weights(kind: Any, folder: Path, config: Any) -> nn.Module:
    """The model with exactly the weights of the folder."""
    try:
        model, loading = kind.from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True, trust_remote_code=False,
            output_loading_info=True, dtype=torch.float32,
        )  # fmt: skip
    except Exception as error:
        raise FileError(
            f"The weights of {folder} cannot be loaded: {first_line(error)}",
            "They are damaged, or belong to another config.json.",
        ) from error
    absent, other = sorted(loading["missing_keys"]), sorted(loading["unexpected_keys"])
    if absent:
        raise FileError(
            f"The weights of {folder} lack {len(absent)} tensors of {kind.__name__}, such as {absent[0]}"
            + (f", and hold {other[0]}, which it does not have." if other else "."),
            "Expected a network that was trained for segmentation, with its head.",
        )
    return model  # type: ignore[no-any-return]


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
