"""edgeseg's own families: one module each, found by its file name, imported on first use.

A family module has
    ENCODERS                          whether an encoder of timm can be named
    SIZES                             only where `encoder` is the name of a size: these names, the default first
    build(classes, width, encoder)    a module that maps [N, 3, H, W] to logits [N, classes, H, W]; H, W multiples of 32
and its net has `classifier`, the layers whose outputs are the classes, and `encoder` where ENCODERS; nets of
transformers (hugging_face_nets.build) have neither. `width` scales its channels. The last step is one bilinear resize
(blocks.upsample_bilinear). Every other name in a recipe is an architecture of segmentation_models_pytorch: see
nets.build.
"""

from __future__ import annotations

from types import ModuleType

from edgeseg import plugins


def names() -> list[str]:
    return plugins.names(__name__)


def get(name: str) -> ModuleType:
    """The family module called `name`, one of names()."""
    return plugins.load(__name__, name)
