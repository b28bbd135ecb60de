"""Checkpoints come back as they were, pruned ones too; anything else is refused with what to do."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from training_helpers import SPEC

from edgeseg.errors import FileError
from edgeseg.recipe import NetConfig
from edgeseg.training import checkpoint, nets, pruning

NET = NetConfig("lite", width=0.5)


def logits_of(model: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(torch.ones(1, 3, 64, 96))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nets.build(NET, 3)


def test_round_trip(model: nn.Module, tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path / "a" / "m.pt", model, NET, SPEC, {"metrics": {"val_miou": 0.5}})
    loaded, net, spec, extra = checkpoint.load(path)
    assert (net, spec, extra) == (NET, SPEC, {"metrics": {"val_miou": 0.5}})
    assert torch.equal(logits_of(loaded), logits_of(model))
    assert list(path.parent.iterdir()) == [path], "no temporary file stays"


@pytest.mark.parametrize(
    "net",
    [NET, NetConfig("deeplabv3plus", "tu-tf_efficientnet_lite0"), NetConfig("fpn", "tu-regnetx_002")],
    ids=lambda n: n.arch,
)
def test_a_pruned_net_needs_no_stored_module(net: NetConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pruned = pruning.prune(nets.build(net, 3), (64, 96), 0.6, round_to=4)
    loaded, *_ = checkpoint.load(checkpoint.save(tmp_path / "m.pt", pruned, net, SPEC))
    assert torch.equal(logits_of(loaded), logits_of(pruned))
    convs = [(m.in_channels, m.out_channels, m.groups) for m in loaded.modules() if isinstance(m, nn.Conv2d)]
    assert convs == [(m.in_channels, m.out_channels, m.groups) for m in pruned.modules() if isinstance(m, nn.Conv2d)]


def test_weights_of_the_encoder_are_not_needed_again(model: nn.Module, tmp_path: Path) -> None:
    net = NetConfig("unet", "resnet18", weights="gone.safetensors")
    unet = nets.build(NetConfig("unet", "resnet18"), 3)
    assert checkpoint.load(checkpoint.save(tmp_path / "m.pt", unet, net, SPEC))[1] == net


def test_missing_and_empty(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"m\.pt does not exist"):
        checkpoint.load(tmp_path / "m.pt")
    (tmp_path / "m.pt").touch()
    with pytest.raises(FileError, match=r"m\.pt is empty"):
        checkpoint.load(tmp_path / "m.pt")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated(model: nn.Module, tmp_path: Path, share: float) -> None:
    path = checkpoint.save(tmp_path / "m.pt", model, NET, SPEC)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(FileError, match=r"m\.pt cannot be read: .*\n.*copy it again or train again"):
        checkpoint.load(path)


def test_not_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_text("hello")
    with pytest.raises(FileError, match="cannot be read"):
        checkpoint.load(path)
    torch.save({"model": torch.zeros(1)}, path)
    with pytest.raises(FileError, match=r"is not one of edgeseg's \(no format named\)\.\nExpected a file written by"):
        checkpoint.load(path)
    torch.save([1], path)
    with pytest.raises(FileError, match="holds a list"):
        checkpoint.load(path)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("owned",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, save: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save({"format": checkpoint.FORMAT, "x": Hostile()}, tmp_path / "m.pt")  # type: ignore[operator]
    with pytest.raises(FileError, match="cannot be read"):
        checkpoint.load(tmp_path / "m.pt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"net": {"arch": "lite", "depth": 3}}, "does not fit its own net: .*depth"),
        ({"net": {"arch": "lit", "encoder": "", "weights": "", "width": 1.0}}, "Unknown architecture 'lit'"),
        ({"spec": {"height": 64}}, "Spec is not usable"),
        ({"state": {}}, "does not fit its own net: .*Missing key|does not fit its own net: Error"),
        ({"state": None}, "does not fit its own net"),
    ],
)
def test_a_checkpoint_that_contradicts_itself(
    model: nn.Module, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = checkpoint.save(tmp_path / "m.pt", model, NET, SPEC)
    checkpoint.write(path, {**checkpoint.read(path), **change})
    with pytest.raises(FileError, match=message):
        checkpoint.load(path)


def test_weights_of_another_architecture(tmp_path: Path) -> None:
    other = nets.build(NetConfig("unet", "resnet18"), 3)
    path = checkpoint.save(tmp_path / "m.pt", other, NET, SPEC)
    with pytest.raises(FileError, match="does not fit its own net"):
        checkpoint.load(path)


def deflated(path: Path) -> None:
    """The same entries, compressed: zeros become a thousandth."""
    with zipfile.ZipFile(path) as old:
        entries = {entry.filename: old.read(entry) for entry in old.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in entries.items():
            new.writestr(name, data)


class TakesMemory:
    def __reduce__(self) -> tuple[object, tuple[int]]:
        return bytearray, (1 << 33,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_small_file_cannot_take_much_memory(model: nn.Module, tmp_path: Path) -> None:
    """Compressed entries, a tensor that repeats one number, a type that takes what it is told, too large a net."""
    path, data = tmp_path / "m.pt", {"format": checkpoint.FORMAT, "state": {"x": torch.zeros(10_000_000)}}
    torch.save(data, path)
    deflated(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(FileError, match="its entries are compressed"):
        checkpoint.load(path)
    torch.save({**data, "state": {"x": torch.zeros(1).expand(1 << 18, 1 << 18)}}, path)
    with pytest.raises(FileError, match="larger than what is stored of it"):
        checkpoint.load(path)
    torch.save({**data, "extra": TakesMemory()}, path)
    with pytest.raises(FileError, match="bytearray, not only tensors"):
        checkpoint.load(path)
    checkpoint.save(path, model, NetConfig("ddrnet", width=16.0), SPEC)
    with pytest.raises(FileError, match=r"does not fit its own net: its net has \d+ MiB"):
        checkpoint.load(path)
    checkpoint.save(path, model, NetConfig("lite", width=1e9), SPEC)
    with pytest.raises(FileError, match=r"net\.width is 1000000000\.0, out of range"):
        checkpoint.load(path)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_tensors_of_other_kinds_are_refused(tmp_path: Path) -> None:
    sparse = torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), [1.0], (1 << 40,))
    torch.save({"format": checkpoint.FORMAT, "state": {"x": sparse}}, tmp_path / "m.pt")
    with pytest.raises(FileError, match="_rebuild_sparse_tensor, not only tensors"):
        checkpoint.load(tmp_path / "m.pt")
