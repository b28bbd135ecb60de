"""Structured pruning: whole channels are removed, which makes every runtime faster, until a net's cost is low enough.

The cost of a net is the sum over its layers: multiply-accumulates, or milliseconds from a latency table
(edgeseg.profiling.table).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from edgeseg.errors import EdgesegError
from edgeseg.profiling.layer import Layer
from edgeseg.training import nets
from edgeseg.training.channel_groups import ChannelGroup, channel_group, dependency_graph
from edgeseg.training.complexity import Cost, layer_shapes, total_cost
from edgeseg.training.importance import Importance, scorer

MIN_CHANNELS = 0.2  # fraction of a layer's channels that stay, so that none becomes a bottleneck
LOOKAHEAD = 3  # chunks of one group that are weighed at once: latency falls in steps
TRIES = 5
CLOSE_ENOUGH = 0.9  # of the requested share of the latency


def prune(
    model: nn.Module,
    size: tuple[int, int],
    keep: float,
    round_to: int = 8,
    importance: Importance = "magnitude",
    cost: Cost | None = None,
    parent: nn.Module | None = None,
) -> nn.Module:
    """A pruned copy with at most `keep` (0..1) of the cost of `parent` (or of `model`) at `size` (height, width).

    Without `cost`, multiply-accumulates count. The channels removed are those that cost most for their importance (a
    greedy knapsack, after Shen et al. 2021, HALP). Layers keep multiples of `round_to` channels. `importance`: the
    result of taylor_importance for `model`, or the name of a kind that uses weights only. EdgesegError where the goal
    cannot be reached.
    """
    whole = parent or model
    goal = keep * total_cost(whole, size, cost)
    if total_cost(model, size, cost) <= goal:
        return copy.deepcopy(model).eval()
    pruned = _remove_channels(model, size, goal, round_to, importance, cost, whole)
    if total_cost(pruned, size, cost) > goal * (1 + 1e-9):
        raise Unreachable(keep, cost)
    return pruned


def prune_to_latency(
    model: nn.Module,
    size: tuple[int, int],
    keep: float,
    round_to: int,
    importance: Importance,
    cost: Cost,
    parent: nn.Module,
    measure: Callable[[nn.Module], float],
) -> nn.Module:
    """Like prune, until `measure` finds that the whole net takes at most `keep` of its parent's time.

    A table of single layers cannot know how a runtime combines them. So the net is measured, and pruned again to
    another sum where the table was wrong. EdgesegError where no attempt comes down to `keep`.
    """
    goal, best, share = keep, 0.0, math.inf
    chosen: nn.Module | None = None
    tried: list[tuple[float, float]] = []
    for _ in range(TRIES):
        try:
            candidate = prune(model, size, min(goal, 1.0), round_to, importance, cost, parent)
        except Unreachable:
            break
        share = measure(candidate)
        tried.append((goal, share))
        if best < share <= keep:
            chosen, best = candidate, share
        if CLOSE_ENOUGH * keep <= share <= keep or (share < keep and goal >= 1):
            break
        goal = _next_goal(tried, 0.98 * keep)
    if chosen is None:
        raise Unreachable(keep, cost, f" The last one measured takes {share:.0%}." if share < math.inf else "")
    return chosen


def _next_goal(tried: list[tuple[float, float]], aim: float) -> float:
    """The sum to prune to next, from the pairs (sum, measured) so far, all as shares of the parent's.

    Runtimes add time that belongs to no layer, so the last two pairs are extrapolated as a line; the first step, and
    one whose slope noise turned negative, is proportional.
    """
    goal, measured = tried[-1]
    if len(tried) > 1 and goal != tried[-2][0]:
        slope = (measured - tried[-2][1]) / (goal - tried[-2][0])
        extrapolated = goal + (aim - measured) / slope if slope > 0 else 0.0
        if goal / 2 < extrapolated < 2 * goal:
            return extrapolated
    return goal * aim / measured


class Unreachable(EdgesegError):
    """The net cannot be pruned this far."""

    def __init__(self, keep: float, cost: Cost | None, detail: str = ""):
        unit, key = ("latency", "latency") if cost else ("multiply-accumulates", "macs")
        super().__init__(
            f"Pruning cannot bring this net to {keep:.0%} of its {unit}.{detail}",
            f"Raise prune.{key} or lower prune.round_to in the recipe.",
        )


def _remove_channels(
    model: nn.Module,
    size: tuple[int, int],
    goal: float,
    round_to: int,
    importance: Importance,
    cost: Cost | None,
    parent: nn.Module,
) -> nn.Module:
    """A copy whose cost is at most `goal`, or as low as it gets. Layers keep MIN_CHANNELS of `parent`'s or more."""
    layer_cost = cost or (lambda layer: float(layer.macs))
    model = copy.deepcopy(model).eval().requires_grad_(True)  # the dependency graph is traced through autograd
    shapes = layer_shapes(model, size)
    fixed = total_cost(model, size, cost) - sum(map(layer_cost, shapes.values()))
    graph = dependency_graph(model, size)
    excluded = [m for layer in (*nets.head(model), *_attention(model)) for m in layer.modules()]
    names = {module: name for name, module in model.named_modules()}
    score = scorer(importance, graph, names)
    groups: list[ChannelGroup] = []
    for group in graph.get_all_groups(excluded):
        first: Any = parent.get_submodule(names[group[0].dep.target.module])
        channels = first.out_features if isinstance(first, nn.Linear) else first.out_channels
        if found := channel_group(graph, group, score, round_to, MIN_CHANNELS * channels, shapes):
            groups.append(found)
    _mark_chunks(groups, shapes, goal - fixed, layer_cost)
    for group in groups:
        if group.removed:
            indices = sorted(i for chunk in group.chunks[: group.removed] for i in chunk)
            graph.get_pruning_group(group.root, group.handler, indices).prune()
    return model


def _attention(model: nn.Module) -> list[nn.Module]:
    """Never pruned: torch-pruning miscounts where heads are split (SegFormer: IndexError)."""
    return [m for m in model.modules() if "Attention" in type(m).__name__]


class _Step(NamedTuple):
    """Removing the first `chunks` of `group`, at `price` (importance lost per cost saved)."""

    price: float
    group: ChannelGroup
    chunks: int
    shapes: dict[nn.Module, Layer]
    saved: float


def _mark_chunks(groups: list[ChannelGroup], shapes: dict[nn.Module, Layer], goal: float, cost: Cost) -> None:
    """Mark chunks as removed until the layers' cost is at most `goal`, or nothing is left to remove."""
    shapes = dict(shapes)
    now = sum(map(cost, shapes.values()))
    while now > goal:
        best: _Step | None = None
        for group in groups:
            for count in range(group.removed + 1, min(group.removed + LOOKAHEAD, len(group.chunks)) + 1):
                narrowed = {m: group.narrowed(m, shapes[m], count) for m in group.lost}
                saved = sum(cost(shapes[m]) - cost(new) for m, new in narrowed.items())
                lost = sum(group.importance[group.removed : count])
                useful = min(saved, now - goal)  # saving more than the goal is no gain
                if saved > 0 and (best is None or lost / useful < best.price):
                    best = _Step(lost / useful, group, count, narrowed, saved)
        if best is None:
            return
        best.group.removed = best.chunks
        shapes.update(best.shapes)
        now -= best.saved
