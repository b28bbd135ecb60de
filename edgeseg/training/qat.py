"""Quantization-aware training: a net trained with INT8 rounding inside loses little accuracy in INT8.

NNCF decides where the net is quantized and finds the initial ranges; `FakeQuantize` rounds, with learned scales. Batch
norms are folded and branches merged first, so that weights are rounded as they are on the device and nothing is left
to be folded after a quantizer.
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


class FakeQuantize(nn.Module, StatefulModuleInterface):  # type: ignore[misc,unused-ignore]
    """x -> s (clip(round(x / s) + z, low, low + 255) - z), with a scale s per tensor or per channel of dimension 0.

    Gradients pass straight through the rounding; s is learned too, by its logarithm (LSQ: Esser et al. 2020). In an
    ONNX export it becomes a QuantizeLinear / DequantizeLinear pair.
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
        gradient_scale = (x.numel() / len(self.log_scale) * LEVELS / 2) ** -0.5  # LSQ, section 2.2
        log_scale = gradient_scale * self.log_scale + (1 - gradient_scale) * self.log_scale.detach()
        scale = log_scale.exp().reshape(-1, *[1] * (x.ndim - 1))
        result: Tensor = torch.fake_quantize_per_tensor_affine(x / scale, 1.0, self.zero, low, high) * scale
        return result

    @classmethod
    @torch.no_grad()
    def like(cls, quantizer: Any, symmetric: bool) -> FakeQuantize:
        """With the range of one of NNCF's quantizers; `symmetric`: INT8 with zero point 0, whatever NNCF chose.

        NNCF quantizes the inputs of depthwise convolutions per channel, which only OpenVINO can run: per tensor here.
        """
        low, high = (end.double() for end in quantizer.get_input_low_input_high())
        if low.numel() > 1 and len(low) == 1:
            low, high = low.min(), high.max()
        low, high = low.reshape(-1), high.reshape(-1)
        if symmetric:
            scale, lowest, zero = torch.maximum(-low, high) / 127, -128, 0
        else:
            scale = (high - low) / (quantizer.level_high - quantizer.level_low)
            lowest = -128 if quantizer.level_low < 0 else 0
            zero = quantizer.level_low - round(float(low[0] / scale[0]))
        quantize = cls(len(scale), lowest, zero)
        quantize.log_scale.copy_(scale.log())
        return quantize

    def get_config(self) -> dict[str, Any]:
        return {"channels": len(self.log_scale), "low": self.low, "zero": self.zero}

    @classmethod
    def from_config(cls, state: dict[str, Any]) -> FakeQuantize:
        return cls(**{key: int(state[key]) for key in ("channels", "low", "zero")})


def prepare(model: nn.Module, frames: list[Tensor], symmetric: bool = False) -> nn.Module:
    """A copy of a float net with quantizers as in OpenVINO's INT8, ranges from `frames` ([1, 3, H, W], normalized).

    `symmetric`: as in TensorRT's, INT8 weights and activations with every zero point 0. The logits stay float.
    """
    fused = fuse(model, (frames[0].shape[2], frames[0].shape[3]))
    logging.getLogger("nncf").setLevel(logging.ERROR)
    presets = nncf.QuantizationPreset
    with contextlib.redirect_stdout(sys.stderr):  # its progress bars
        quantized: nn.Module = nncf.quantize(
            fused.model,
            nncf.Dataset(frames),
            preset=presets.PERFORMANCE if symmetric else presets.MIXED,
            subset_size=len(frames),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.DISABLE,
                disable_bias_correction=True,  # biases are trained
                # The default, a mean over frames, would clip what is active in few of them.
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            ),
        )
    _replace_quantizers(quantized, symmetric)
    _unquantize_logits(quantized, frames[0])
    return _with_checkpoint_keys(quantized, list(fused.merged))


def restore(model: nn.Module, quantizers: str, merged: list[str]) -> nn.Module:
    """A float net (batch norms folded, the blocks `merged` merged) with the `quantizers` of its checkpoint.

    Load its state dict next. ValueError where they cannot be read.
    """
    try:
        config = json.loads(quantizers)
        quantized: nn.Module = nncf.torch.load_from_config(model, config, allowed_modules=(__name__,))
    except Exception as error:  # NNCF does not validate: a hostile file can raise anything
        raise ValueError(f"its quantizers cannot be read: {error}") from error
    return _with_checkpoint_keys(quantized, merged)


def _with_checkpoint_keys(model: nn.Module, merged: list[str]) -> nn.Module:
    """With the attributes that checkpoints store: `quantizers` (JSON), and the blocks whose branches were `merged`."""
    untyped: Any = model
    untyped.quantizers, untyped.merged = json.dumps(nncf.torch.get_config(model)), merged
    return model


def _replace_quantizers(model: nn.Module, symmetric: bool) -> None:
    """A FakeQuantize for each of NNCF's quantizers, which would need a C++ compiler at run time."""
    replacements: dict[nn.Module, FakeQuantize] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, BaseQuantizer):
            replacements[module] = replacements.get(module) or FakeQuantize.like(module, symmetric)
            parent, _, key = name.rpartition(".")
            setattr(model.get_submodule(parent), key, replacements[module])


def _unquantize_logits(model: nn.Module, image: Tensor) -> None:
    """Remove a quantizer between the logits and their upsampling: it would only create ties."""
    outputs: list[tuple[str, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: outputs.append((name, output)))
        for name, module in model.named_modules()
        if isinstance(module, FakeQuantize)
    ]
    with torch.no_grad():
        logits = model.eval()(image)
    for hook in hooks:
        hook.remove()
    name, last = outputs[-1]
    parent, _, key = name.rpartition(".")
    if ".post_hooks." in name and last.shape[:2] == logits.shape[:2]:
        delattr(model.get_submodule(parent), key)
