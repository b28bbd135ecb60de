"""Merging the branches of re-parameterizable blocks (MobileOne, RepVGG, FastViT, ...) into one layer each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from edgeseg.training.module_trace import relative_difference, trace_modules

METHODS = ("reparameterize", "switch_to_deploy", "fuse")  # the names in timm, smp and RepVGG's own code


def has_branches(model: nn.Module) -> bool:
    """Whether any block of the net has a method that merges its branches."""
    return any(_merge_method(module) for name, module in model.named_modules() if name)


def merge(block: nn.Module) -> nn.Module:
    """A copy of a block with its branches merged in float64; not compared with the original."""
    copied = copy.deepcopy(block).double()
    method = _merge_method(copied)
    replacement = method() if method else None  # some blocks change themselves, others return their replacement
    return (replacement if isinstance(replacement, nn.Module) else copied).float().eval()


def merge_branches(model: nn.Module, image: Tensor, tolerance: float) -> tuple[list[str], dict[str, str]]:
    """Merge in place; the names of the merged blocks, and of the others the reason why not.

    A block is merged only if its output on the input it gets from `image` moves by at most `tolerance`, relatively.
    """
    blocks = [name for name, m in model.named_modules() if name and _merge_method(m)]
    calls = trace_modules(model, image, blocks)
    merged: list[str] = []
    unmerged: dict[str, str] = {}
    for name in blocks:  # the outer blocks first
        if name not in calls or any(name.startswith(f"{outer}.") for outer in merged):
            continue  # it never runs, or was replaced together with the block around it
        block = model.get_submodule(name)
        args, kwargs, expected = calls[name]
        try:
            single = merge(block)
            error = relative_difference(single(*args, **kwargs), expected)
        except Exception as problem:  # third-party code: it may raise anything
            unmerged[name] = f"cannot be merged: {type(problem).__name__} {problem}"
            continue
        if not error <= tolerance:
            unmerged[name] = f"merging it moves its output by {error:.2g} of the largest"
        elif _count_modules(single) < _count_modules(block):
            model.set_submodule(name, single)
            merged.append(name)
    return merged, unmerged


def _merge_method(module: nn.Module) -> Callable[[], Any] | None:
    """The method that merges a block's branches, if its class has one."""
    name = next((name for name in METHODS if callable(getattr(type(module), name, None))), "")
    return getattr(module, name) if name else None


def _count_modules(module: nn.Module) -> int:
    return sum(1 for _ in module.modules())
