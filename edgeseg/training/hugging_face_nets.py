"""Segmentation networks of transformers as modules that map a normalized image to logits at its size."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeseg.errors import MissingPackage
from edgeseg.training.blocks import GridPool

Segments = tuple[list[Tensor], list[Tensor]]  # of each image: masks [K, H, W] float32 and classes [K] int64
SMALLEST = 1e-3  # added to scores: the logarithm of less would be that of rounding errors
ENCODERS = {
    "eomt": ("model.embeddings.", "model.layers."),
    "mask2former": ("model.model.pixel_level_module.encoder.",),
    "maskformer": ("model.model.pixel_level_module.encoder.",),
    "upernet": ("model.backbone.",),
}  # the beginnings of their parameters' names
UNUSED = ("encoder.swin.layernorm.", "encoder.model.layernorm.", "auxiliary_head.")  # parameters that logits ignore


def library(job: str) -> Any:
    """The package transformers, quiet. `job` needs it."""
    try:
        import transformers
        import transformers.models.auto.modeling_auto
    except ImportError as error:
        raise MissingPackage("transformers", job, "transformers") from error
    logs: Any = transformers.logging
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    return transformers


def networks(transformers: Any) -> tuple[dict[str, str], dict[str, str]]:
    """The classes of transformers by `model_type`: those with a score of every class for every pixel, and those that
    predict a class and a mask for each of many queries."""
    known = transformers.models.auto.modeling_auto
    return (
        dict(known.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES),
        dict(known.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES),
    )


def is_semantic(config: Any) -> bool:
    """Whether a network of this config has a score of every class for every pixel, rather than queries."""
    return config.model_type in networks(library("A network of transformers"))[0]


class Semantic(nn.Module):
    """Logits [N, C, h, w] of a network of transformers, resized to the image's size."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return resized(self.model(pixel_values=image).logits, image)


class Queries(nn.Module):
    """Scores [N, C, H, W] of a network that predicts a class and a mask for each of Q queries.

    The sum over the queries of P(class) x P(mask), Cheng et al. 2021 (arXiv 2107.06278), equation 2, at the masks' own
    size, then resized.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return resized(self.scores(image), image)

    def scores(self, image: Tensor) -> Tensor:
        """[N, C, h, w], at the size of the masks."""
        return self.folded(self.model(pixel_values=image))

    @staticmethod
    def folded(found: Any) -> Tensor:
        """The scores of the outputs of the network."""
        classes = found.class_queries_logits.softmax(-1)[..., :-1]  # the last one is "no object"
        masks = found.masks_queries_logits.sigmoid()
        scores: Tensor = classes.transpose(1, 2) @ masks.flatten(2)
        return scores.reshape(*scores.shape[:2], *masks.shape[-2:])


class LogQueries(Queries):
    """The logarithm of these scores: logits, of which softmax makes each class's share, as losses and teachers need.

    The same classes win at every point of the masks.
    """

    def forward(self, image: Tensor, segments: Segments | None = None) -> Any:
        """Logits [N, C, H, W]; with `segments` also the network's own loss of them as a scalar.

        That loss matches each segment with one query, and all others with no object (Hungarian matching, Carion et al.
        2020); its terms and their weights are in the network's config.
        """
        masks, classes = segments or (None, None)
        found = self.model(pixel_values=image, mask_labels=masks, class_labels=classes)
        logits = resized((self.folded(found) + SMALLEST).log(), image)
        return (logits, found.loss.sum()) if segments else logits


def resized(logits: Tensor, image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    return functional.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)


def trainable(model: Any) -> nn.Module:
    """A network of transformers as one that edgeseg trains; it takes frames of any size its blocks allow.

    `transformers` of the result is the JSON that builds the network again, `encoder_prefix` the beginnings of the names
    of its encoder's parameters.
    """
    kind = model.config.model_type
    replace_adaptive_pooling(model)
    if kind == "eomt":
        model.embeddings.forward = GridEmbeddings(model).forward
    for name, parameter in model.named_parameters():
        if any(part in name for part in UNUSED):
            parameter.requires_grad_(False)  # torch's DDP waits for gradients of all others
    net: Any = Semantic(model) if is_semantic(model.config) else LogQueries(model)
    net.transformers = model.config.to_json_string(use_diff=False)
    net.encoder_prefix = ENCODERS.get(kind, (f"model.{model.base_model_prefix}.",))
    return net  # type: ignore[no-any-return]


def replace_adaptive_pooling(model: nn.Module) -> None:
    """In place: some networks hold these modules in plain lists, too."""
    for module in model.modules():
        side = module.output_size if isinstance(module, nn.AdaptiveAvgPool2d) else None
        if isinstance(side, int) and side > 1:
            module.forward = GridPool(side).forward


class GridEmbeddings:
    """EoMT's embeddings for images of any size: positions are interpolated from the square grid they were learned on,
    as ViTs do (Dosovitskiy et al. 2021, section 3.2)."""

    def __init__(self, model: Any):
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        own = self.model.embeddings
        patch = own.patch_embeddings.patch_size
        grid = int(pixel_values.shape[2]) // int(patch[0]), int(pixel_values.shape[3]) // int(patch[1])
        self.model.grid_size = grid
        patches = own.patch_embeddings(pixel_values) + self._positions(own.position_embeddings.weight, grid)
        prefix = [t.expand(len(pixel_values), -1, -1) for t in (own.cls_token, own.register_tokens)]
        return own.dropout(torch.cat([*prefix, patches], 1))  # type: ignore[no-any-return]

    @staticmethod
    def _positions(learned: Tensor, grid: tuple[int, int]) -> Tensor:
        """[grid, grid] positions of D numbers, [grid**2, D], as [1, height * width, D]."""
        side = round(len(learned) ** 0.5)
        if grid == (side, side):
            return learned[None]
        square = learned.T.reshape(1, -1, side, side)
        return functional.interpolate(square, size=grid, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)


def build(config: Any) -> nn.Module:
    """The trainable network of a config of transformers, with random weights. Nothing is downloaded."""
    transformers = library("A network of transformers")
    semantic, universal = networks(transformers)
    name = (semantic | universal)[config.model_type]
    return trainable(getattr(transformers, name)(config))


def from_json(text: str, classes: int) -> nn.Module:
    """The network that `trainable(...).transformers` describes, with random weights. ValueError where it has other than
    so many `classes`."""
    transformers = library("A checkpoint of a network of transformers")
    table = _without_downloads(json.loads(text))
    config = transformers.AutoConfig.for_model(**table)
    if config.num_labels != classes:
        raise ValueError(f"its network has {config.num_labels} classes, its Spec {classes}.")
    return build(config)


def _without_downloads(value: Any) -> Any:
    """A config of which no part asks for pretrained weights: the checkpoint has them all."""
    if isinstance(value, dict):
        return {k: False if k == "use_pretrained_backbone" else _without_downloads(v) for k, v in value.items()}
    return [_without_downloads(v) for v in value] if isinstance(value, list) else value
