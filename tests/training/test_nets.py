"""Every family: shapes, gradients, a clean last resize, a clear refusal of what does not fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import safetensors.torch
import torch

from edgeseg.errors import EdgesegError, FileError, OptionError
from edgeseg.recipe import NetConfig
from edgeseg.training import nets
from edgeseg.training.complexity import macs_params

FAMILIES = [
    NetConfig("lite", width=0.25),
    NetConfig("deeplabv3plus", "tu-tf_efficientnet_lite0"),
    NetConfig("unet", "resnet18"),
]


@pytest.mark.parametrize("net", FAMILIES, ids=lambda n: n.arch)
def test_forward_and_backward(net: NetConfig) -> None:
    torch.manual_seed(0)
    model = nets.build(net, classes=5).train()
    logits = model(torch.randn(2, 3, 64, 96))
    assert logits.shape == (2, 5, 64, 96)
    logits.square().mean().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert missing == []


@pytest.mark.parametrize("net", FAMILIES[:2], ids=lambda n: n.arch)
def test_the_last_step_is_a_bilinear_resize_of_the_head(net: NetConfig) -> None:
    """So that class maps can be taken from the small logits: upsampling them must give the model's own output."""
    model = nets.build(net, classes=3).eval()
    small: list[torch.Tensor] = []
    nets.head(model)[-1].register_forward_hook(lambda m, i, out: small.append(out))
    with torch.inference_mode():
        full = model(torch.randn(1, 3, 64, 96))
    up = torch.nn.functional.interpolate(small[0], size=(64, 96), mode="bilinear", align_corners=False)
    assert small[0].shape[-2:] == (16, 24)
    torch.testing.assert_close(up, full)


def test_the_same_seed_gives_the_same_weights() -> None:
    built = []
    for _ in range(2):
        torch.manual_seed(3)
        built.append(nets.build(NetConfig(width=0.25), 3).state_dict())
    assert all(torch.equal(built[0][key], built[1][key]) for key in built[0])


def test_the_student_is_small() -> None:
    macs, params = macs_params(nets.build(NetConfig("lite", width=0.75), 8), (224, 384))
    assert 0.15e9 < macs < 0.4e9 and 0.3e6 < params < 1.2e6


def test_lite_has_only_operators_that_every_runtime_quantizes() -> None:
    kinds = {type(m).__name__ for m in nets.build(NetConfig("lite"), 8).modules() if not list(m.children())}
    assert kinds == {"Conv2d", "BatchNorm2d", "ReLU", "Identity"}


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (NetConfig("lit"), r"Unknown architecture 'lit'\.\nDid you mean 'lite'"),
        (NetConfig("unet", "resnet81"), r"Unknown encoder 'resnet81'\.\nDid you mean 'resnet18'"),
        (NetConfig("unet", "tu-resnet81"), r"Unknown encoder 'tu-resnet81'\.\nDid you mean 'tu-resnet"),
        (NetConfig("unet", "resnet18", width=2.0), r"'unet' with width 2\.0"),
        (NetConfig("unet", "resnet18.a1_in1k"), r"Unknown encoder 'resnet18\.a1_in1k'"),
        (NetConfig("lite", "resnet18"), r"Unknown encoder 'resnet18'\.\nDid you mean 'tu-resnet18'"),
        (NetConfig("ddrnet", "tu-resnet18"), r"'ddrnet' with encoder 'tu-resnet18'\.\nIt has its own"),
        (NetConfig("dpt", "tu-resnet18"), r"Unknown architecture 'dpt'"),
        (
            NetConfig("fcn", "tu-vit_tiny_patch16_224"),
            r"Encoder 'vit_tiny_patch16_224' has maps at strides .*\nExpected 4, 8, 16 and 32",
        ),
        (NetConfig("lite", weights="w.safetensors"), r"'lite' with weights 'w\.safetensors'\.\nThey are an encoder's"),
    ],
)
def test_a_net_that_does_not_exist(net: NetConfig, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        nets.build(net, 3)


def test_encoder_weights_are_found_under_timms_names(tmp_path: Path) -> None:
    """timm's own classifier has dots where its feature extractor has underscores, and layers the encoder lacks."""
    encoder = nets.build(NetConfig("fpn", "tu-resnet10t"), 3).encoder
    tensors = {key: torch.full_like(value, 0.5) for key, value in encoder.model.state_dict().items()}
    stored = {key.replace("layer1_", "layer1."): value for key, value in tensors.items()}
    safetensors.torch.save_file({**stored, "fc.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    net = NetConfig("fpn", "tu-resnet10t", str(tmp_path / "w.safetensors"))
    filled = nets.build(net, 3).encoder.state_dict()
    assert all((value == 0.5).all() for key, value in filled.items() if value.is_floating_point())


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"other": torch.zeros(1)}, r"do not fit: \d+ of \d+ tensors are missing or of another shape, first conv1"),
        (None, "cannot be read"),
    ],
)
def test_encoder_weights_of_something_else(tmp_path: Path, tensors: dict[str, torch.Tensor], message: str) -> None:
    path = tmp_path / "w.safetensors"
    if tensors is None:
        path.write_bytes(b"not safetensors")
    else:
        safetensors.torch.save_file(tensors, path)
    with pytest.raises(FileError, match=message):
        nets.build(NetConfig("unet", "resnet18", str(path)), 3)


def test_encoder_weights_that_are_missing() -> None:
    with pytest.raises(FileError, match=r"Encoder weights nowhere\.safetensors does not exist"):
        nets.build(NetConfig("unet", "resnet18", "nowhere.safetensors"), 3)


def hub(monkeypatch: pytest.MonkeyPatch, file: Path | None) -> list[str]:
    """Serve the downloads of timm and smp from a file, or fail as without a network; the repositories requested."""
    import segmentation_models_pytorch as smp
    import timm.models._hub

    requested: list[str] = []

    def download(repo_id: str, filename: str = "", **more: object) -> str:
        requested.append(repo_id)
        if file is None:
            raise ConnectionError("[Errno -2] Name or service not known")
        return str(file)

    monkeypatch.setattr(timm.models._hub, "hf_hub_download", download)
    monkeypatch.setattr(smp.encoders, "hf_hub_download", download)
    return requested


@pytest.mark.parametrize(
    ("net", "weights", "repository"),
    [
        (NetConfig("lite", "tu-resnet10t"), "imagenet", "timm/resnet10t.c3_in1k"),
        (NetConfig("unet", "tu-resnet10t"), "c3_in1k", "timm/resnet10t.c3_in1k"),
        (NetConfig("unet", "tu-resnet10t.c3_in1k"), "imagenet", "timm/resnet10t.c3_in1k"),
        (NetConfig("unet", "resnet18"), "imagenet", "smp-hub/resnet18.imagenet"),
    ],
)
def test_encoder_weights_by_name(
    net: NetConfig, weights: str, repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import segmentation_models_pytorch as smp
    import timm

    own = net.encoder == "resnet18"
    source = smp.encoders.get_encoder("resnet18") if own else timm.create_model("resnet10t")
    tensors = {k: torch.full_like(v, 0.25) for k, v in source.state_dict().items()}
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    requested = hub(monkeypatch, tmp_path / "model.safetensors")
    encoder = nets.build(dataclasses.replace(net, weights=weights), 3).encoder
    assert set(requested) == {repository}
    assert all((value == 0.25).all() for value in encoder.state_dict().values() if value.is_floating_point())


@pytest.mark.parametrize("encoder", ["tu-resnet10t", "resnet18"])
def test_encoder_weights_by_name_without_a_network(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, None)
    message = (
        rf"Encoder weights 'imagenet' of {encoder} could not be downloaded: .*Name or service.*\nWithout a network"
    )
    with pytest.raises(EdgesegError, match=message):
        nets.build(NetConfig("unet", encoder, "imagenet"), 3)


def test_a_tag_that_does_not_exist() -> None:
    with pytest.raises(
        EdgesegError, match=r"'a9_in1k' of tu-resnet10t could not be downloaded: Invalid pretrained tag"
    ):
        nets.build(NetConfig("lite", "tu-resnet10t", "a9_in1k"), 3)
