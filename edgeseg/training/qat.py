"""Quantization-aware training: a net that learns with INT8's rounding inside, and so loses little when it is INT8.

NNCF decides where the net rounds and finds the first ranges; `Rounding` does it, with scales that are learnt. Batch
norms are folded and branches merged first: weights are rounded as the device has them, and nothing is left to be folded
behind a rounding.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.errors import MissingPackage
from edgeseg.training.fusion import fuse

try:
    import nncf
    import nncf.torch
    from nncf.quantization.advanced_parameters import OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet
    from nncf.torch.layer_utils import StatefulModuleInterface
    from nncf.torch.quantization.layers import BaseQuantizer
except ImportError as error:
    raise MissingPackage("nncf", "Quantization-aware training", "compress,train") from error

LEVELS = 255  # steps of 8 bits


class Rounding(nn.Module, StatefulModuleInterface):  # type: ignore[misc,unused-ignore]
    """x -> s (clip(round(x / s) + z, low, low + 255) - z), a scale s for the tensor or for each channel of its first
    dimension. Gradients pass the rounding straight; s learns, too, by its logarithm (LSQ: Esser et al. 2020).

    In an ONNX export it is a pair of QuantizeLinear and DequantizeLinear.
    """

    def __init__(self, channels: int, low: int, zero: int):
        super().__init__()
        self.low, self.zero = low, zero
        self.log_scale = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.low, self.low + LEVELS
        if torch.onnx.is_in_onnx_export():
            scales = self.log_scale.detach().exp().tolist()  # constants to the exporter
            if len(scales) == 1:
                return torch.fake_quantize_per_tensor_affine(x, scales[0], self.zero, low, high)
            zeros = torch.full((len(scales),), self.zero, dtype=torch.int32)
            return torch.fake_quantize_per_channel_affine(x, torch.tensor(scales), zeros, 0, low, high)
        share = (x.numel() / len(self.log_scale) * LEVELS / 2) ** -0.5  # of the gradient: LSQ, section 2.2
        logarithm = share * self.log_scale + (1 - share) * self.log_scale.detach()
        scale = logarithm.exp().reshape(-1, *[1] * (x.ndim - 1))
        made: Tensor = torch.fake_quantize_per_tensor_affine(x / scale, 1.0, self.zero, low, high) * scale
        return made

    @classmethod
    @torch.no_grad()
    def like(cls, quantizer: Any, symmetric: bool) -> Rounding:
        """With the range of one of NNCF's; `symmetric`: INT8 with zero point 0, however NNCF has it.

        NNCF gives what a depthwise convolution reads a scale for each channel, which only OpenVINO can run: one here.
        """
        low, high = (end.double() for end in quantizer.get_input_low_input_high())
        if low.numel() > 1 and len(low) == 1:
            low, high = low.min(), high.max()
        low, high = low.reshape(-1), high.reshape(-1)
        if symmetric:
            scale, least, zero = torch.maximum(-low, high) / 127, -128, 0
        else:
            scale = (high - low) / (quantizer.level_high - quantizer.level_low)
            least = -128 if quantizer.level_low < 0 else 0
            zero = quantizer.level_low - round(float(low[0] / scale[0]))
        made = cls(len(scale), least, zero)
        made.log_scale.copy_(scale.log())
        return made

    def get_config(self) -> dict[str, Any]:
        return {"channels": len(self.log_scale), "low": self.low, "zero": self.zero}

    @classmethod
    def from_config(cls, state: dict[str, Any]) -> Rounding:
        return cls(**{key: int(state[key]) for key in ("channels", "low", "zero")})


def prepare(model: nn.Module, frames: list[Tensor], symmetric: bool = False) -> nn.Module:
    """A copy of a float net that rounds as OpenVINO's INT8 does, with ranges from `frames` ([1, 3, H, W], normalized).

    `symmetric`: as TensorRT's does, INT8 on both sides and every zero point 0. The logits stay float.
    """
    fused = fuse(model, (frames[0].shape[2], frames[0].shape[3]))
    logging.getLogger("nncf").setLevel(logging.ERROR)
    presets = nncf.QuantizationPreset
    with contextlib.redirect_stdout(sys.stderr):  # its progress bars
        made: nn.Module = nncf.quantize(
            fused.model,
            nncf.Dataset(frames),
            preset=presets.PERFORMANCE if symmetric else presets.MIXED,
            subset_size=len(frames),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.DISABLE,
                disable_bias_correction=True,  # biases are trained
                # Its mean over frames would clip what fires in few of them.
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            ),
        )
    _own_roundings(made, symmetric)
    _float_logits(made, frames[0])
    return _marked(made, list(fused.merged))


def restore(model: nn.Module, roundings: str, merged: list[str]) -> nn.Module:
    """A float net (batch norms folded, the blocks `merged` merged) with its `roundings` as _marked told them; load its
    state dict next. ValueError."""
    try:
        made: nn.Module = nncf.torch.load_from_config(model, json.loads(roundings), allowed_modules=(__name__,))
    except Exception as error:  # NNCF checks nothing: whatever a hostile file makes of it
        raise ValueError(f"its roundings cannot be read: {error}") from error
    return _marked(made, merged)


def _marked(model: nn.Module, merged: list[str]) -> nn.Module:
    """With what checkpoints keep of it: its `roundings` (JSON), and the blocks whose branches were `merged`."""
    untyped: Any = model
    untyped.roundings, untyped.merged = json.dumps(nncf.torch.get_config(model)), merged
    return model


def _own_roundings(model: nn.Module, symmetric: bool) -> None:
    """Rounding for each quantizer of NNCF's, whose training would need a C++ compiler on the spot."""
    made: dict[nn.Module, Rounding] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, BaseQuantizer):
            made[module] = made.get(module) or Rounding.like(module, symmetric)
            parent, _, key = name.rpartition(".")
            setattr(model.get_submodule(parent), key, made[module])


def _float_logits(model: nn.Module, image: Tensor) -> None:
    """Take out a rounding between the logits and their upsampling: it would only make ties."""
    called: list[tuple[str, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: called.append((name, output)))
        for name, module in model.named_modules()
        if isinstance(module, Rounding)
    ]
    with torch.no_grad():
        logits = model.eval()(image)
    for hook in hooks:
        hook.remove()
    name, last = called[-1]
    parent, _, key = name.rpartition(".")
    if ".post_hooks." in name and last.shape[:2] == logits.shape[:2]:
        delattr(model.get_submodule(parent), key)
