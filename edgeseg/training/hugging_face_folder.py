"""Reading a Hugging Face folder (config.json, safetensors): the network as it is, or as the start of a training."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError, FileError, OptionError, first_line
from edgeseg.onnx_graph.metadata import CONFIG, hugging_face_metadata
from edgeseg.spec import Spec
from edgeseg.training.hugging_face_nets import library, networks, trainable

log = logging.getLogger(__name__)

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
HUB = "hf:"  # before the id of a model on the hub: nothing is downloaded without it
FILES = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]


def read_config(folder: Path) -> Any:
    """The config of a segmentation network; FileError or OptionError for anything else. No code of the folder runs."""
    transformers = library(f"Reading the Hugging Face folder {folder}")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise FileError(
            f"{folder} has no {WEIGHTS[0]}.",
            "Expected safetensors; other weights are pickles, which may run code: convert them if you trust them.",
        )
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises what its parsers do
        raise FileError(
            f"{folder / CONFIG} cannot be used: {first_line(error)}", "Expected what save_pretrained wrote."
        ) from error
    semantic, universal = networks(transformers)
    name = (semantic | universal).get(config.model_type, "")
    if not name or name not in (config.architectures or [name]):
        raise OptionError(
            f"{folder} holds {', '.join(config.architectures or [config.model_type])}, not a segmentation network.",
            f"Expected one of: {', '.join(sorted({*semantic.values(), *universal.values()}))}.",
        )
    return config


def read_model(folder: Path, config: Any) -> nn.Module:
    """The network of transformers with exactly the weights of the folder. `config`: from read_config."""
    transformers = library(f"Reading the Hugging Face folder {folder}")
    semantic, universal = networks(transformers)
    kind = getattr(transformers, (semantic | universal)[config.model_type])
    try:
        model, loading = kind.from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True, trust_remote_code=False,
            output_loading_info=True, dtype=torch.float32,
        )  # fmt: skip
    except Exception as error:
        raise FileError(
            f"The weights of {folder} cannot be loaded: {first_line(error)}",
            "They are damaged, or belong to another config.json.",
        ) from error
    absent, other = sorted(loading["missing_keys"]), sorted(loading["unexpected_keys"])
    if absent:
        raise FileError(
            f"The weights of {folder} lack {len(absent)} tensors of {kind.__name__}, such as {absent[0]}"
            + (f", and hold {other[0]}, which it does not have." if other else "."),
            "Expected a network that was trained for segmentation, with its head.",
        )
    return model  # type: ignore[no-any-return]


def pretrained(weights: str, arch: str, spec: Spec) -> nn.Module:
    """The network of a local folder, or of the hub as hf:NAME, as the start of a training for the classes of `spec`.

    Where its classes are others, the layers that predict them are new, but for the classes that it knows by name. That
    and other normalization are logged. OptionError for another architecture or an input size that it does not take.
    """
    folder = Path(weights)
    if weights.startswith(HUB):
        folder = download(weights.removeprefix(HUB))
    elif not folder.is_dir():
        raise FileError(
            f"The folder {weights} of weights does not exist.",
            f"Expected config.json and {WEIGHTS[0]} in it. To download a model of the hub, write {HUB}OWNER/NAME.",
        )
    config = read_config(folder)
    if config.model_type != arch:
        raise OptionError(
            f"{weights} holds the architecture {config.model_type!r}, the recipe says {arch!r}.",
            f'Set arch = "{config.model_type}" in the recipe, or name other weights.',
        )
    model = _with_classes(read_model(folder, config), spec.classes, weights)
    _warn_of_other_frames(folder, weights, spec)
    net = trainable(model)
    try:
        with torch.inference_mode():
            net.eval()(torch.zeros(1, 3, spec.height, spec.width))
    except (RuntimeError, ValueError) as error:
        raise OptionError(
            f"{weights} does not take {spec.width}x{spec.height}: {first_line(error)}",
            "Change data.size of the recipe.",
        ) from error
    return net


def download(name: str) -> Path:
    """The folder of a model of the hub, downloaded unless it is in the hub's cache; only configs and safetensors."""
    from huggingface_hub import snapshot_download  # comes with transformers

    library("A model of the hub")
    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except Exception as error:  # the exceptions of the hub and of its network library share no base class
        raise EdgesegError(
            f"The model {name} of the hub could not be downloaded: {first_line(error)}",
            "Without a network, fetch the folder elsewhere and give its path: weights = 'FOLDER'.",
        ) from error


def _with_classes(model: Any, classes: tuple[str, ...], title: str) -> nn.Module:
    """`model`, if it predicts these classes in this order, else one that does, with the weights of all other layers."""
    known = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
    if tuple(known) == classes:
        return model  # type: ignore[no-any-return]
    config = copy.deepcopy(model.config)
    config.id2label, config.label2id = dict(enumerate(classes)), {name: i for i, name in enumerate(classes)}
    changed: Any = type(model)(config)
    rows = [known.index(name) if name in known else -1 for name in classes]
    heads, state = _heads(model), changed.state_dict()
    for key, old in model.state_dict().items():
        if key in heads:
            _copy_rows(old, state[key], heads[key], rows, len(known))
        else:
            state[key].copy_(old)
    new = [name for name, row in zip(classes, rows) if row < 0]
    log.warning(
        "%s predicts %d classes, the dataset has %d: %s of its class head are new.",
        *(title, len(known), len(classes)),
        "all weights" if len(new) == len(classes) else f"the weights for {', '.join(new)}" if new else "no weights",
    )
    return changed  # type: ignore[no-any-return]


def _heads(model: Any) -> dict[str, int]:
    """The tensors of a network that have a part for each class, and the axis of the classes."""
    config = copy.deepcopy(model.config)
    config.num_labels = model.config.num_labels + 1
    with torch.device("meta"):
        wider = type(model)(config).state_dict()
    shapes = {key: (tensor.shape, wider[key].shape) for key, tensor in model.state_dict().items()}
    return {
        key: next(i for i, (a, b) in enumerate(zip(own, other)) if a != b)
        for key, (own, other) in shapes.items()
        if own != other
    }


def _copy_rows(old: Tensor, new: Tensor, axis: int, rows: list[int], known: int) -> None:
    """In place: the parts of the classes that `old` knows, and those after its classes ("no object")."""
    old, new = old.movedim(axis, 0), new.movedim(axis, 0)
    for i, row in enumerate(rows):
        if row >= 0:
            new[i] = old[row]
    if len(old) > known:
        new[len(rows) :] = old[known:]


def _warn_of_other_frames(folder: Path, title: str, spec: Spec) -> None:
    known = hugging_face_metadata(folder / WEIGHTS[0])
    if known is None:
        return
    own = known.to_spec()
    if any(own[key] != getattr(spec, key) for key in ("color", "mean", "std") if key in own):
        log.warning(
            "%s was trained on %s frames with mean %s and std %s; here they are %s with mean %s and std %s: it takes "
            "some training to adapt.",
            *(title, own["color"], own["mean"], own["std"], spec.color, spec.mean, spec.std),
        )
