"""Structured pruning: whole channels leave the net, which makes every runtime faster, until its price is low enough.

The price of a net is the sum of what its layers cost: multiply-accumulates, or milliseconds of a latency table
(compression.latency). Channels that depend on each other (skips, concatenations, grouped convolutions) leave together;
torch-pruning knows which do (Fang et al. 2023, DepGraph).
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from edgeseg.errors import EdgesegError
from edgeseg.profiling.latency import Layer
from edgeseg.training import nets
from edgeseg.training.export import macs_params
from edgeseg.training.importance import Importance, Scorer, scorer

LEAST = 0.2  # share of a layer's channels that stay, so that none becomes a bottleneck
AHEAD = 3  # steps of one group that are weighed at once: latency falls in stairs
TRIES = 5
CLOSE = 0.9  # of the share of latency that was asked for: near enough
Price = Callable[[Layer], float]


def prune(
    model: nn.Module,
    size: tuple[int, int],
    keep: float,
    round_to: int = 8,
    importance: Importance = "magnitude",
    price: Price | None = None,
    parent: nn.Module | None = None,
) -> nn.Module:
    """A pruned copy with at most `keep` (0..1) of the price of `parent` (or of `model`) at `size` (height, width).

    Without a `price`, multiply-accumulates count. Those channels go that cost most for their importance (a greedy
    knapsack, after Shen et al. 2021, HALP). Layers keep multiples of `round_to` channels. `importance`: what
    importance.losses found of `model`, or the name of one that looks at weights. Raises EdgesegError where the goal
    cannot be reached.
    """
    whole = parent or model
    goal = keep * total(whole, size, price)
    if total(model, size, price) <= goal:
        return copy.deepcopy(model).eval()
    pruned = _cut(model, size, goal, round_to, importance, price, whole)
    if total(pruned, size, price) > goal * (1 + 1e-9):
        raise Unreachable(keep, price)
    return pruned


def prune_to_latency(
    model: nn.Module,
    size: tuple[int, int],
    keep: float,
    round_to: int,
    importance: Importance,
    price: Price,
    parent: nn.Module,
    measure: Callable[[nn.Module], float],
) -> nn.Module:
    """Like prune, until `measure` says that the net as a whole takes `keep` of its parent's time, or a little less.

    A table cannot know what a runtime makes of layers beside each other. So the net is measured, and cut again to
    another sum where the table was wrong. Raises EdgesegError where no cut comes down to `keep`.
    """
    goal, best, found = keep, 0.0, math.inf
    chosen: nn.Module | None = None
    tried: list[tuple[float, float]] = []
    for _ in range(TRIES):
        try:
            candidate = prune(model, size, min(goal, 1.0), round_to, importance, price, parent)
        except Unreachable:
            break
        found = measure(candidate)
        tried.append((goal, found))
        if best < found <= keep:
            chosen, best = candidate, found
        if CLOSE * keep <= found <= keep or (found < keep and goal >= 1):
            break
        goal = _next_goal(tried, 0.98 * keep)
    if chosen is None:
        raise Unreachable(keep, price, f" The last one measured takes {found:.0%}." if found < math.inf else "")
    return chosen


def _next_goal(tried: list[tuple[float, float]], wanted: float) -> float:
    """The sum to cut to next, from (sum, measured) so far, both as shares. Runtimes add to a sum what no layer has, so
    the last two are extended as a line; the first step, and one that noise turned round, is a proportion."""
    goal, found = tried[-1]
    if len(tried) > 1 and goal != tried[-2][0]:
        slope = (found - tried[-2][1]) / (goal - tried[-2][0])
        ahead = goal + (wanted - found) / slope if slope > 0 else 0.0
        if goal / 2 < ahead < 2 * goal:
            return ahead
    return goal * wanted / found


class Unreachable(EdgesegError):
    """So little of a net cannot be kept."""

    def __init__(self, keep: float, price: Price | None, more: str = ""):
        what, key = ("latency", "latency") if price else ("multiply-accumulates", "macs")
        super().__init__(
            f"Pruning cannot bring this net to {keep:.0%} of its {what}.{more}",
            f"Raise prune.{key} or lower prune.round_to in the recipe.",
        )


# What a net costs


def layers(model: nn.Module, size: tuple[int, int]) -> dict[nn.Module, Layer]:
    """Convolutions and linear layers that run on an image of `size`, and their shapes. A linear layer's rows (tokens)
    are the height of a 1x1 convolution's map."""
    found: dict[nn.Module, Layer] = {}

    def note(module: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            rows = output[0].numel() // module.out_features, 1
            found[module] = Layer(module.in_features, module.out_features, rows, rows)
            return
        before, after = ((t.shape[2], t.shape[3]) for t in (args[0], output))
        shape = (
            module.kernel_size,
            module.stride,
            module.dilation,
            module.groups,
            isinstance(module, nn.ConvTranspose2d),
        )
        found[module] = Layer(module.in_channels, module.out_channels, before, after, *shape)

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, kinds)]
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, *size))
    finally:
        for handle in handles:
            handle.remove()
    return found


def total(model: nn.Module, size: tuple[int, int], price: Price | None) -> float:
    """The price of a net; multiply-accumulates include those of products without weights, as in attention."""
    if price is None:
        return macs_params(model, size)[0]
    return sum(map(price, layers(model, size).values()))


# What can go


@dataclass
class _Group:
    """Channels that leave together, in chunks, the least important first. `worth`: of each chunk. `reach`: how many
    inputs and outputs each layer has lost once so many chunks have gone."""

    root: nn.Module
    handler: Any
    chunks: list[list[int]]
    worth: list[float]
    reach: dict[nn.Module, tuple[list[int], list[int]]]
    gone: int = 0


def _group(
    graph: Any, group: Any, score: Scorer, round_to: int, least: float, shapes: dict[nn.Module, Layer]
) -> list[_Group]:
    """What pruning needs to know of a group of torch-pruning; nothing where it cannot be pruned.

    A position is one channel in each channel group of a grouped convolution or norm. Where several layers make the
    group's channels side by side (a concatenation that a depthwise convolution reads), each is rounded for itself.
    """
    scores = score(group)
    if scores is None:
        return []
    copies = max((_channel_groups(graph, dep) for dep, _ in group), default=1)
    per_group = len(scores) // copies
    worth = scores.detach().nan_to_num(0.0).reshape(copies, per_group).mean(0).tolist()
    step = math.lcm(round_to, copies) // copies
    leaves = _leaving(graph, group, per_group, shapes)
    parts: dict[frozenset[Any], list[int]] = {}
    for i in sorted(range(per_group), key=worth.__getitem__):
        parts.setdefault(frozenset(leaves[i]), []).append(i)
    chunks: list[list[int]] = []
    for part in parts.values():
        kept = step * math.ceil(least * len(part) / (per_group * copies * step))
        first = len(part) % step or step
        ends = range(first, len(part) - kept + 1, step)
        chunks += [part[max(0, end - step) : end] for end in ends]
    chunks.sort(key=lambda chunk: sum(worth[i] for i in chunk) / len(chunk))
    if not chunks:
        return []
    layers = {layer for found in leaves for layer, _ in found}
    lost = {
        (layer, side): [sum(leaves[i][layer, side] for i in chunk) for chunk in chunks]
        for layer in layers
        for side in (0, 1)
    }
    made = _Group(
        group[0].dep.target.module,
        group[0].dep.handler,
        [[i + n * per_group for i in chunk for n in range(copies)] for chunk in chunks],
        [sum(worth[i] for i in chunk) for chunk in chunks],
        {layer: ([0, *accumulate(lost[layer, 0])], [0, *accumulate(lost[layer, 1])]) for layer in layers},
    )
    return [made]


def _leaving(
    graph: Any, group: Any, positions: int, shapes: dict[nn.Module, Layer]
) -> list[Counter[tuple[nn.Module, int]]]:
    """How many inputs (side 0) and outputs (side 1) leave each layer with each position."""
    found: list[Counter[tuple[nn.Module, int]]] = [Counter() for _ in range(positions)]
    for item in group:
        layer = item.dep.target.module
        if layer not in shapes:
            continue
        if shapes[layer].depthwise:  # may be there twice, by either side
            for root, count in Counter(root % positions for root in item.root_idxs).items():
                found[root][layer, 0] = found[root][layer, 1] = count
            continue
        side = int(graph.is_out_channel_pruning_fn(item.dep.handler))
        for root in item.root_idxs:
            found[root % positions][layer, side] += 1
    return found


def _channel_groups(graph: Any, dep: Any) -> int:
    """How many equal parts the channels of a layer have on the side that is pruned; a depthwise one's go one by one."""
    module = dep.target.module
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.groups == module.out_channels:
        return 1
    pruner = graph.get_pruner_of_module(module)
    if pruner is None:
        return 1
    outwards = graph.is_out_channel_pruning_fn(dep.handler)
    return int(pruner.get_out_channel_groups(module) if outwards else pruner.get_in_channel_groups(module))


def _cut(
    model: nn.Module,
    size: tuple[int, int],
    goal: float,
    round_to: int,
    importance: Importance,
    price: Price | None,
    parent: nn.Module,
) -> nn.Module:
    """A copy whose price is at most `goal`, or as low as it gets. No layer keeps less than LEAST of its `parent`'s."""
    cost = price or (lambda layer: float(layer.macs))
    model = copy.deepcopy(model).eval().requires_grad_(True)  # the dependency graph is traced through autograd
    shapes = layers(model, size)
    rest = total(model, size, price) - sum(map(cost, shapes.values()))
    graph = _dependencies(model, size)
    kept = [m for layer in (*nets.head(model), *_attention(model)) for m in layer.modules()]
    names = {module: name for name, module in model.named_modules()}
    score = scorer(importance, graph, names)
    groups = []
    for group in graph.get_all_groups(kept):
        first: Any = parent.get_submodule(names[group[0].dep.target.module])
        least = LEAST * (first.out_features if isinstance(first, nn.Linear) else first.out_channels)
        groups += _group(graph, group, score, round_to, least, shapes)
    _search(groups, shapes, goal - rest, cost)
    for group in groups:
        if group.gone:
            gone = sorted(i for chunk in group.chunks[: group.gone] for i in chunk)
            graph.get_pruning_group(group.root, group.handler, gone).prune()
    return model


def _dependencies(model: nn.Module, size: tuple[int, int]) -> Any:
    """torch-pruning's graph, which it finds backwards from the outputs. Some encoders run stages that no decoder reads
    (PSPNet's): every module's output counts as one of the net, or they would not learn what is cut before them."""
    import torch_pruning as tp

    def forward(net: nn.Module, image: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            outputs.extend(t for t in tree_leaves(output) if isinstance(t, Tensor))

        handles = [m.register_forward_hook(keep) for m in net.modules()]
        try:
            return [net(image), *outputs]
        finally:
            for handle in handles:
                handle.remove()

    return tp.DependencyGraph().build_dependency(model, torch.zeros(1, 3, *size), forward_fn=forward)


def _attention(model: nn.Module) -> list[nn.Module]:
    """Left as they are: torch-pruning loses count where heads are split off (SegFormer: IndexError)."""
    return [m for m in model.modules() if "Attention" in type(m).__name__]


def _search(groups: list[_Group], shapes: dict[nn.Module, Layer], goal: float, price: Price) -> None:
    """Mark chunks as gone until the layers' price is at most `goal`, or nothing more can go."""
    widths = dict(shapes)
    now = sum(map(price, widths.values()))
    while now > goal:
        best: tuple[float, _Group, int, dict[nn.Module, Layer], float] | None = None
        for group in groups:
            for count in range(group.gone + 1, min(group.gone + AHEAD, len(group.chunks)) + 1):
                fewer = {m: _narrower(widths[m], reach, group.gone, count) for m, reach in group.reach.items()}
                saved = sum(price(widths[m]) - price(new) for m, new in fewer.items())
                lost = sum(group.worth[group.gone : count])
                useful = min(saved, now - goal)  # what it saves beyond the goal is no gain
                if saved > 0 and (best is None or lost / useful < best[0]):
                    best = lost / useful, group, count, fewer, saved
        if best is None:
            return
        _, group, count, fewer, saved = best
        group.gone = count
        widths.update(fewer)
        now -= saved


def _narrower(layer: Layer, reach: tuple[list[int], list[int]], gone: int, count: int) -> Layer:
    inputs, outputs = (lost[count] - lost[gone] for lost in reach)
    return layer.widths(layer.inputs - inputs, layer.outputs - outputs)
