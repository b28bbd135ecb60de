"""Fusion: a net of fewer layers that says the same. Branches are merged, batch norms folded, and the result is proven.

Both are found as they run, not as they are written: a batch norm is folded where it is the only reader of the only
output of a convolution. So subclasses, functional calls and nets that torch.fx cannot trace need no cases of their own.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from edgeseg.errors import EdgesegError

TOLERANCE = 1e-5  # of the largest output
MERGES = ("reparameterize", "switch_to_deploy", "fuse")  # what timm's, smp's and RepVGG's own blocks call it
NORM = nn.modules.batchnorm._BatchNorm
PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class Fused:
    """`model`: in eval mode. `batchnorms`: how many there were and are. `merged`: the blocks whose branches are one.

    `left`: name -> why that block or batch norm stays as it was. `error`: largest difference of the outputs on noise,
    as a share of the largest output.
    """

    model: nn.Module
    batchnorms: tuple[int, int]
    merged: tuple[str, ...]
    left: dict[str, str]
    error: float


@torch.no_grad()
def fuse(model: nn.Module, size: tuple[int, int]) -> Fused:
    """A fused copy of a net of images [N, 3, height, width]; `size` is the (height, width) it is proven at.

    A block that offers to merge its branches (MobileOne, RepVGG, FastViT, ...) must say what it said before on the
    input that it gets, or it is left as it was. Batch norms are folded in float64. EdgesegError, naming the first
    module that differs, where the outputs of the whole move by more than 1e-5 of the largest.
    """
    before = copy.deepcopy(model).eval()
    after = copy.deepcopy(before)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    merged, left = _merge(after, image)
    more = _fold(after, image)
    error = difference(after(image), before(image))
    if not error <= TOLERANCE:
        name = _first_wrong(before, after, image)
        raise EdgesegError(
            f"Fusing moves the outputs by {error:.2g} of the largest; the first module that differs is {name}.",
            f"Expected at most {TOLERANCE:g}: use this net unfused, and report its architecture.",
        )
    return Fused(after, (_norms(before), _norms(after)), tuple(merged), left | more, error)


def branched(model: nn.Module) -> bool:
    """Whether any block of the net offers to merge its branches."""
    return any(_offer(module) for name, module in model.named_modules() if name)


def merge(block: nn.Module) -> nn.Module:
    """A copy of a block whose branches are one, worked out in float64; unproven."""
    copied = copy.deepcopy(block).double()
    offer = _offer(copied)
    made = offer() if offer else None  # some blocks change themselves, others return their successor
    return (made if isinstance(made, nn.Module) else copied).float().eval()


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference as a share of the largest expected value; NaN where anything is NaN."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def _norms(model: nn.Module) -> int:
    return sum(isinstance(m, NORM) for m in model.modules())


# Branches


def _merge(model: nn.Module, image: Tensor) -> tuple[list[str], dict[str, str]]:
    """Merge in place what can be merged; the names of the merged blocks, and why others are not."""
    offers = {name: m for name, m in model.named_modules() if name and _offer(m)}
    seen = _run(model, image, offers)
    merged: list[str] = []
    left: dict[str, str] = {}
    for name in offers:  # the outer blocks first
        if name not in seen or any(name.startswith(f"{done}.") for done in merged):
            continue  # it never runs, or is gone with the block around it
        block = model.get_submodule(name)
        args, kwargs, expected = seen[name]
        try:
            single = merge(block)
            error = difference(single(*args, **kwargs), expected)
        except Exception as problem:  # code from outside: it may raise whatever it likes
            left[name] = f"cannot be merged: {type(problem).__name__} {problem}"
            continue
        if not error <= TOLERANCE:
            left[name] = f"merging it moves its output by {error:.2g} of the largest"
        elif _parts(single) < _parts(block):
            model.set_submodule(name, single)
            merged.append(name)
    return merged, left


def _offer(module: nn.Module) -> Callable[[], Any] | None:
    """The method that merges a block's branches, if its class has one."""
    name = next((name for name in MERGES if callable(getattr(type(module), name, None))), "")
    return getattr(module, name) if name else None


def _parts(module: nn.Module) -> int:
    return sum(1 for _ in module.modules())


# Batch norms


class _Calls(TorchFunctionMode):
    """Every call of torch from tensors to tensors, and how often each tensor was read by one."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], Any]] = []  # holds all tensors, so that no id is used twice
        self.readers: Counter[int] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(t, Tensor) for t in tree_leaves(result)):
            self.calls.append((func, (*args, kwargs), result))
            self.readers.update(id(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor))
        return result


def _fold(model: nn.Module, image: Tensor) -> dict[str, str]:
    """Fold in place; the batch norms that stay, and why."""
    with _Calls() as seen:
        model(image)
    layers = {id(m.weight): m for m in model.modules() if isinstance(m, LAYERS)}
    made = {
        id(result): layers[id(args[1])]
        for func, args, result in seen.calls
        if func in (F.conv2d, F.conv_transpose2d, F.linear) and id(args[1]) in layers
    }
    source = {id(args[1]): args[0] for func, args, _ in seen.calls if func is F.batch_norm}
    left: dict[str, str] = {}
    for name, norm in [(n, m) for n, m in model.named_modules() if isinstance(m, NORM)]:
        read = source.get(id(norm.running_mean)) if norm.running_mean is not None else None
        layer = made.get(id(read))
        rest = nn.Identity() if type(norm) in PLAIN else getattr(norm, "act", None)  # timm's has its activation inside
        if read is None:
            left[name] = "it never runs on running statistics"
        elif layer is None or (isinstance(layer, nn.Linear) and read.ndim != 2):
            left[name] = "it does not follow a convolution"
        elif max(seen.readers[id(t)] for t in (read, layer.weight, norm.running_mean)) > 1:
            left[name] = "its convolution's output, or one of the two layers, is used more than once"
        elif not isinstance(rest, nn.Module):
            left[name] = f"what a {type(norm).__name__} does behind the normalization is not known"
        else:
            fold_into(layer, norm)
            model.set_submodule(name, rest)
    return left


def fold_into(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, norm: nn.Module) -> None:
    """In place: w' = w g / sqrt(var + eps), b' = (b - mean) g / sqrt(var + eps) + beta, in float64."""
    source: Any = norm
    mean, var = source.running_mean.double(), source.running_var.double()
    gain = (var + source.eps).rsqrt() * (source.weight.double() if source.weight is not None else 1)
    shift = source.bias.double() if source.bias is not None else 0
    weight, kind = layer.weight.double(), layer.weight.dtype
    bias = layer.bias.double() if layer.bias is not None else torch.zeros_like(mean)
    if isinstance(layer, nn.ConvTranspose2d):  # [in, out / groups, ...], the outputs of a group beside each other
        grouped = weight.reshape(layer.groups, -1, *weight.shape[1:]) * gain.reshape(layer.groups, 1, -1, 1, 1)
        weight = grouped.reshape(weight.shape)
    else:
        weight = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    layer.weight = nn.Parameter(weight.to(kind), requires_grad=layer.weight.requires_grad)
    layer.bias = nn.Parameter(((bias - mean) * gain + shift).to(kind), requires_grad=layer.weight.requires_grad)


# Proof


def _run(model: nn.Module, image: Tensor, names: Iterable[str]) -> dict[str, tuple[Any, Any, Tensor]]:
    """One forward pass: the arguments and the output of the modules called `names`, in the order they first ran."""
    seen: dict[str, tuple[Any, Any, Tensor]] = {}

    def hook(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if name not in seen and isinstance(output, Tensor):
                # Clones: what comes behind may work in place.
                seen[name] = (*inputs.pop(name), output.clone())

        return keep

    def before(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, args: Any, kwargs: Any) -> None:
            inputs.setdefault(name, copy.deepcopy((args, kwargs)))

        return keep

    inputs: dict[str, tuple[Any, Any]] = {}
    handles = []
    for name in names:
        module = model.get_submodule(name)
        handles.append(module.register_forward_pre_hook(before(name), with_kwargs=True))
        handles.append(module.register_forward_hook(hook(name), with_kwargs=True))
    model(image)
    for handle in handles:
        handle.remove()
    return seen


def _first_wrong(before: nn.Module, after: nn.Module, image: Tensor) -> str:
    """The first module, in the order they end, that is in both nets and differs; but for layers and rows of layers,
    which may hold a batch norm now."""
    bare = (*LAYERS, nn.Sequential)
    names = {n for n, m in before.named_modules() if n and not isinstance(m, bare)} & dict(after.named_modules()).keys()
    expected, found = (_run(model, image, names) for model in (before, after))
    wrong = (n for n in expected if n in found and not difference(found[n][2], expected[n][2]) <= TOLERANCE)
    return next(wrong, type(before).__name__)
