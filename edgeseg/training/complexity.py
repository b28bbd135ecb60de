"""What a net costs: multiply-accumulates, parameters, and the shapes of its layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgeseg.profiling.layer import Layer

Cost = Callable[[Layer], float]  # of one layer, in any unit


def macs_params(model: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """Multiply-accumulates of one frame of `size` (height, width), and the number of parameters."""
    training = model.training
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, *size))
    model.train(training)
    return counter.get_total_flops() // 2, sum(p.numel() for p in model.parameters())


def layer_shapes(model: nn.Module, size: tuple[int, int]) -> dict[nn.Module, Layer]:
    """The convolutions and linear layers that run on an image of `size` (height, width), and their shapes.

    A linear layer counts as a 1x1 convolution on a map whose height is its number of rows (tokens).
    """
    shapes: dict[nn.Module, Layer] = {}

    def record(module: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            rows = output[0].numel() // module.out_features, 1
            shapes[module] = Layer(module.in_features, module.out_features, rows, rows)
            return
        before, after = ((t.shape[2], t.shape[3]) for t in (args[0], output))
        transposed = isinstance(module, nn.ConvTranspose2d)
        options = (module.kernel_size, module.stride, module.dilation, module.groups, transposed)
        shapes[module] = Layer(module.in_channels, module.out_channels, before, after, *options)

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    handles = [m.register_forward_hook(record) for m in model.modules() if isinstance(m, kinds)]
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, *size))
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def total_cost(model: nn.Module, size: tuple[int, int], cost: Cost | None) -> float:
    """The sum of `cost` over a net's layers; None counts MACs, those of products without weights (attention) too."""
    if cost is None:
        return macs_params(model, size)[0]
    return sum(map(cost, layer_shapes(model, size).values()))
