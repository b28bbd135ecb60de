"""Checkpoints: weights, the net they belong to, the Spec and metrics, in one file without pickled code.

A pruned net needs no stored module: a fresh net of the same NetConfig is cut to the shapes of the stored tensors. One
that was trained for INT8 (qat.py) also has `quantizers`, JSON that says where it rounds, and `merged`, the names of the
blocks whose branches were merged. One of transformers has its config as JSON in
`transformers`.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError, FileError
from edgeseg.files import write_bytes
from edgeseg.recipe import NetConfig
from edgeseg.spec import Spec
from edgeseg.toml import to_dataclass
from edgeseg.training import checkpoint_file, hugging_face_nets, nets
from edgeseg.training.branch_merging import merge
from edgeseg.training.norm_folding import LAYERS, NORM

FORMAT = "edgeseg-checkpoint-1"
SMALL, MOST_PRUNED = 256 << 20, 64  # bytes of a net that may always be built; and how much larger than its file
MISFITS = (
    KeyError, TypeError, AttributeError, ValueError, IndexError, AssertionError, OverflowError, RuntimeError,
    EdgesegError,
)  # fmt: skip
KEYS = ("quantizers", "merged", "transformers")  # attributes that some nets have, and keys of their checkpoints
Loaded = tuple[nn.Module, NetConfig, Spec, dict[str, Any]]


def save(path: Path, model: nn.Module, net: NetConfig, spec: Spec, extra: dict[str, Any] | None = None) -> Path:
    """Write atomically. `extra`: plain values only (numbers, strings, lists, dicts)."""
    more = {key: getattr(model, key) for key in KEYS if hasattr(model, key)}
    write(path, {"format": FORMAT, "net": dataclasses.asdict(net), "spec": spec.to_dict(), "extra": extra or {},
                 **more, "state": model.state_dict()})  # fmt: skip
    return path


def load(path: Path | str) -> Loaded:
    """The model in eval mode on the CPU, its net, its Spec and the extra values. FileError for any other file."""
    path = Path(path)
    data = read(path)
    if data.get("format") != FORMAT:
        raise FileError(
            f"Checkpoint {path} is not one of edgeseg's ({data.get('format', 'no format named')}).",
            "Expected a file written by: edgeseg train, distill, prune or qat. Other models: export them to ONNX.",
        )
    try:
        net, spec = to_dataclass(NetConfig, data["net"], "net", path), Spec.from_dict(data["spec"])
        if "transformers" in data:
            build = partial(hugging_face_nets.from_json, data["transformers"], len(spec.classes))
        else:
            build = partial(nets.build, dataclasses.replace(net, weights=""), len(spec.classes))
        model = _fresh(build, path.stat().st_size)
        merged = list(data.get("merged", ()))
        for name in merged:
            model.set_submodule(name, merge(model.get_submodule(name)))
        if "quantizers" in data:
            remove_folded_norms(model, data["state"])
        if "transformers" not in data:  # those are never pruned
            fit_shapes(model, data["state"])
        if "quantizers" in data:
            from edgeseg.training import qat  # needs NNCF

            model = qat.restore(model, data["quantizers"], merged)
        model.load_state_dict(data["state"])
        return model.eval(), net, spec, data["extra"]
    except MISFITS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileError(f"Checkpoint {path} does not fit its own net: {reason}", "Train it again.") from error


def _fresh(build: Callable[[], nn.Module], stored: int) -> nn.Module:
    """A net without weights; ValueError, before it takes memory, if it cannot have been cut to `stored` bytes."""
    tensors: Iterable[Tensor] = ()
    # Some encoders compute with values while they are built, which tensors without memory do not have. None is large.
    with suppress(RuntimeError, NotImplementedError), torch.device("meta"):
        tensors = build().state_dict().values()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > SMALL + MOST_PRUNED * stored:
        raise ValueError(f"its net has {size >> 20} MiB, the file {stored >> 10} KiB.")
    return build()


def is_quantized(model: nn.Module) -> bool:
    """Whether the net was prepared for INT8 by qat.py."""
    return hasattr(model, "quantizers")


def write(path: Path, data: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(data, buffer)
    write_bytes(path, buffer.getvalue())


def read(path: Path) -> dict[str, Any]:
    """A dict of tensors and plain values; nothing in the file can run code (weights_only)."""
    data = checkpoint_file.load(path)
    if not isinstance(data, dict):
        raise FileError(
            f"Checkpoint {path} holds a {type(data).__name__}.", "Expected a file written by edgeseg train."
        )
    return data


def fit_shapes(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give the layers of a fresh `model` the numbers of channels in `state`."""
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
        for key, tensor in own.items():
            stored = state.get(f"{name}.{key}" if name else key)
            if stored is None or stored.shape == tensor.shape:
                continue
            if isinstance(tensor, nn.Parameter):
                setattr(module, key, nn.Parameter(torch.empty_like(stored)))
            else:
                setattr(module, key, torch.empty_like(stored))
        _update_channel_counts(module)


def remove_folded_norms(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Remove a fresh `model`'s batch norms that are folded in `state` : the layers before have biases."""
    for name, module in list(model.named_modules()):
        if isinstance(module, NORM) and f"{name}.running_mean" not in state:
            model.set_submodule(name, getattr(module, "act", nn.Identity()))  # timm's has its activation inside
        elif isinstance(module, LAYERS) and module.bias is None and f"{name}.bias" in state:
            module.bias = nn.Parameter(torch.empty_like(state[f"{name}.bias"]))


def _update_channel_counts(module: nn.Module) -> None:
    """Set the attributes of a layer to what its tensors have."""
    if isinstance(module, nn.Conv2d):
        depthwise = module.groups == module.in_channels and module.groups > 1
        module.out_channels = module.weight.shape[0]
        module.groups = module.out_channels if depthwise else module.groups
        module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = module.weight.shape[0]
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)
