"""Groups of channels that can only be removed together, and what each step of removing them saves.

Channels depend on each other through skips, concatenations and grouped convolutions; torch-pruning finds which do
(Fang et al. 2023, DepGraph).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from edgeseg.profiling.layer import Layer
from edgeseg.training.importance import Scorer

INPUTS, OUTPUTS = 0, 1  # sides of a layer
LayerSide = tuple[nn.Module, int]


@dataclass
class ChannelGroup:
    """Channels that leave together, in chunks, the least important first.

    `importance`: of each chunk. `lost`: layer -> the numbers of inputs and of outputs it has lost after 0, 1, 2, ...
    chunks. `removed`: how many chunks are marked for removal.
    """

    root: nn.Module
    handler: Any
    chunks: list[list[int]]
    importance: list[float]
    lost: dict[nn.Module, tuple[list[int], list[int]]]
    removed: int = 0

    def narrowed(self, layer: nn.Module, shape: Layer, count: int) -> Layer:
        """The shape of `layer`, now `shape`, once `count` chunks are removed instead of `removed`."""
        inputs, outputs = (lost[count] - lost[self.removed] for lost in self.lost[layer])
        return shape.with_channels(shape.inputs - inputs, shape.outputs - outputs)


def channel_group(
    graph: Any, group: Any, score: Scorer, round_to: int, min_channels: float, shapes: dict[nn.Module, Layer]
) -> ChannelGroup | None:
    """The ChannelGroup of a group of torch-pruning; None where it cannot be pruned.

    `min_channels` of the group must stay. A position is one channel in each channel group of a grouped convolution or
    norm. Where several layers produce the group's channels side by side (a concatenation that a depthwise convolution
    reads), each is rounded to `round_to` by itself.
    """
    scores = score(group)
    if scores is None:
        return None
    copies = max((_channel_groups(graph, dep) for dep, _ in group), default=1)
    positions = len(scores) // copies
    importance = scores.detach().nan_to_num(0.0).reshape(copies, positions).mean(0).tolist()
    losses = _losses(graph, group, positions, shapes)
    step = math.lcm(round_to, copies) // copies
    chunks = _chunks(importance, losses, step, copies, min_channels)
    if not chunks:
        return None

    def lost(layer: nn.Module, side: int) -> list[int]:
        return [0, *accumulate(sum(losses[i][layer, side] for i in chunk) for chunk in chunks)]

    layers = {layer for loss in losses for layer, _ in loss}
    return ChannelGroup(
        group[0].dep.target.module,
        group[0].dep.handler,
        [[i + n * positions for i in chunk for n in range(copies)] for chunk in chunks],
        [sum(importance[i] for i in chunk) for chunk in chunks],
        {layer: (lost(layer, INPUTS), lost(layer, OUTPUTS)) for layer in layers},
    )


def _chunks(
    importance: list[float], losses: list[Counter[LayerSide]], step: int, copies: int, min_channels: float
) -> list[list[int]]:
    """Positions in chunks of `step`, the least important chunk first; at least `min_channels` channels are in none.

    A position is `copies` channels. A chunk holds only positions that leave the same layers.
    """
    parts: dict[frozenset[Any], list[int]] = {}
    for i in sorted(range(len(importance)), key=importance.__getitem__):
        parts.setdefault(frozenset(losses[i]), []).append(i)
    chunks: list[list[int]] = []
    for part in parts.values():
        stay = step * math.ceil(min_channels * len(part) / (len(importance) * copies * step))
        first = len(part) % step or step
        ends = range(first, len(part) - stay + 1, step)
        chunks += [part[max(0, end - step) : end] for end in ends]
    chunks.sort(key=lambda chunk: sum(importance[i] for i in chunk) / len(chunk))
    return chunks


def _losses(graph: Any, group: Any, positions: int, shapes: dict[nn.Module, Layer]) -> list[Counter[LayerSide]]:
    """For each position, how many inputs and outputs each layer loses with it."""
    losses: list[Counter[LayerSide]] = [Counter() for _ in range(positions)]
    for item in group:
        layer = item.dep.target.module
        if layer not in shapes:
            continue
        if shapes[layer].depthwise:  # may occur twice, once for each side
            for root, count in Counter(root % positions for root in item.root_idxs).items():
                losses[root][layer, INPUTS] = losses[root][layer, OUTPUTS] = count
            continue
        side = int(graph.is_out_channel_pruning_fn(item.dep.handler))
        for root in item.root_idxs:
            losses[root % positions][layer, side] += 1
    return losses


def _channel_groups(graph: Any, dep: Any) -> int:
    """How many equal parts a layer's channels have on the pruned side; those of a depthwise one are independent."""
    module = dep.target.module
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.groups == module.out_channels:
        return 1
    pruner = graph.get_pruner_of_module(module)
    if pruner is None:
        return 1
    outputs = graph.is_out_channel_pruning_fn(dep.handler)
    return int(pruner.get_out_channel_groups(module) if outputs else pruner.get_in_channel_groups(module))


def dependency_graph(model: nn.Module, size: tuple[int, int]) -> Any:
    """torch-pruning's graph, traced backwards from the outputs of every module.

    Some encoders run stages that no decoder reads (PSPNet's). Traced from the net's own output alone, these would not
    follow when a layer before them is cut.
    """
    import torch_pruning as tp

    def forward(net: nn.Module, image: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []

        def record(module: nn.Module, args: Any, output: Any) -> None:
            outputs.extend(t for t in tree_leaves(output) if isinstance(t, Tensor))

        handles = [m.register_forward_hook(record) for m in net.modules()]
        try:
            return [net(image), *outputs]
        finally:
            for handle in handles:
                handle.remove()

    return tp.DependencyGraph().build_dependency(model, torch.zeros(1, 3, *size), forward_fn=forward)
