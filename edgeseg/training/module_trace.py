"""What modules received and returned in one forward pass, to compare a changed net with the original."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

Call = tuple[Any, Any, Tensor]  # args, kwargs, output


def trace_modules(model: nn.Module, image: Tensor, names: Iterable[str]) -> dict[str, Call]:
    """The first call of each of the modules called `names` in one forward pass, in the order they finished."""
    calls: dict[str, Call] = {}
    inputs: dict[str, tuple[Any, Any]] = {}

    def record_input(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            inputs.setdefault(name, copy.deepcopy((args, kwargs)))

        return hook

    def record_output(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if name not in calls and isinstance(output, Tensor):
                calls[name] = (*inputs.pop(name), output.clone())  # clones: later modules may work in place

        return hook

    handles = []
    for name in names:
        module = model.get_submodule(name)
        handles.append(module.register_forward_pre_hook(record_input(name), with_kwargs=True))
        handles.append(module.register_forward_hook(record_output(name), with_kwargs=True))
    model(image)
    for handle in handles:
        handle.remove()
    return calls


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the largest expected value; NaN where anything is NaN."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
