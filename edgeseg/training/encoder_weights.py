"""Pretrained weights of an encoder: from a safetensors file, or downloaded by name through timm or smp."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from edgeseg.errors import EdgesegError, FileError, first_line
from edgeseg.files import require_file
from edgeseg.training import smp_internals


def is_file(weights: str) -> bool:
    """Whether NetConfig.weights names a file; otherwise it is a name that timm or smp can download."""
    return weights.endswith(".safetensors") or ("/" in weights and not weights.startswith("hf:"))


def load(encoder: str, weights: str) -> dict[str, Tensor]:
    """The tensors of `weights`: a file, "imagenet" for the encoder's default ones, or a tag of timm (a1_in1k) or smp.

    FileError for a file that cannot be read, EdgesegError where a download fails.
    """
    return _from_file(Path(weights)) if is_file(weights) else _download(encoder, weights)


def _from_file(path: Path) -> dict[str, Tensor]:
    import safetensors.torch
    from safetensors import SafetensorError

    try:
        return safetensors.torch.load_file(require_file(path, "Encoder weights"))
    except (SafetensorError, OSError) as error:
        raise FileError(f"Encoder weights {path} cannot be read: {error}.", "Expected a safetensors file.") from None


def _download(encoder: str, weights: str) -> dict[str, Tensor]:
    import timm

    try:
        if encoder.startswith("tu-") or encoder not in smp_internals.encoders():
            name = encoder.removeprefix("tu-")
            model: nn.Module = timm.create_model(
                name if weights == "imagenet" else f"{name}.{weights}", pretrained=True
            )
        else:
            model = smp_internals.pretrained_encoder(encoder, weights)
    except Exception as error:  # the exceptions of the hub and of its network library share no base class
        raise EdgesegError(
            f"Encoder weights {weights!r} of {encoder} could not be downloaded: {first_line(error)}",
            "Without a network, fetch the safetensors file elsewhere and give its path: weights = 'FILE.safetensors'.",
        ) from error
    return model.state_dict()


def fill(encoder: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Fill an encoder from tensors under timm's or torchvision's names; FileError unless they fit entirely.

    timm's feature extractors write `stages_0` where its classifiers write `stages.0`, so dots and underscores count as
    equal. Tensors that the encoder lacks (its classifier's) are ignored. `source` begins the error message.
    """
    stored = {key.replace(".", "_"): tensor for key, tensor in tensors.items()}
    fitting: dict[str, Tensor] = {}
    wrong: list[str] = []
    for key, own in encoder.state_dict().items():
        tensor = stored.get(key.replace(".", "_"))
        if tensor is not None and tensor.shape == own.shape:
            fitting[key] = tensor
        elif not key.endswith("num_batches_tracked"):
            wrong.append(key if tensor is None else f"{key} {list(tensor.shape)} instead of {list(own.shape)}")
    if wrong:
        raise FileError(
            f"{source} do not fit: {len(wrong)} of {len(wrong) + len(fitting)} tensors are missing or of "
            f"another shape, first {', '.join(wrong[:3])}.",
            "They must belong to exactly this encoder, under timm's names.",
        )
    encoder.load_state_dict(fitting, strict=False)
