"""The file of a checkpoint, checked before memory is taken for what it says.

torch.save writes a zip of stored (not compressed) entries: a pickle, and one entry for each tensor's memory. Nothing in
such a file can be much larger than the file; one that was made by somebody else can claim anything.
"""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgeseg.errors import FileError
from edgeseg.files import require_file

MAX_PICKLE = 64 << 20
# All that torch.save needs for tensors and plain values. torch's own list for weights_only is longer, and has what
# takes memory without having any in the file.
TYPES = ("collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter")
BROKEN = "It is truncated, corrupt or not a checkpoint; copy it again or train again."


def load(path: Path) -> Any:
    """The tensors and plain values in `path`, on the CPU; nothing in the file can run code. FileError otherwise."""
    try:
        _check_entries(require_file(path, "Checkpoint"))
        data = torch.load(path, map_location="cpu", weights_only=True)
        _check_tensors(data, path.stat().st_size)
        return data
    except FileError:
        raise
    except Exception as error:  # a damaged pickle leads torch to raise anything
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    raise FileError(f"Checkpoint {path} cannot be read: {reason}", BROKEN)


def _check_entries(path: Path) -> None:
    """ValueError for entries that are not simply stored, and for a pickle that names anything but tensors."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its entries are compressed, which torch.save does not do")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its entries claim to be larger than the file")
        for entry in (entry for entry in entries if entry.filename.endswith(".pkl")):
            if entry.file_size > MAX_PICKLE:
                raise ValueError(f"{entry.filename} is over {MAX_PICKLE >> 20} MiB")
            for code, argument, _ in pickletools.genops(archive.read(entry)):
                if code.name in ("INST", "STACK_GLOBAL") or (code.name == "GLOBAL" and not _is_known(str(argument))):
                    raise ValueError(f"it holds {str(argument)[:80]}, not only tensors and plain values")


def _is_known(name: str) -> bool:
    module, _, kind = name.partition(" ")
    return name in TYPES or (module in ("torch", "torch.storage") and kind.endswith("Storage"))


def _check_tensors(data: Any, size: int) -> None:
    """ValueError for tensors that are larger than their memory in the file, together or alone."""
    total = 0
    for tensor in _tensors(data):
        if tensor.device.type != "cpu" or tensor.layout != torch.strided:
            raise ValueError("it holds a tensor of another kind")
        total += (own := tensor.numel() * tensor.element_size())
        if own > tensor.untyped_storage().nbytes() or total > 2 * size:
            raise ValueError("it holds a tensor that is larger than what is stored of it")


def _tensors(data: Any) -> Iterator[Tensor]:
    waiting, seen = [data], set[int]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend((*value, *value.values()) if isinstance(value, dict) else value)
