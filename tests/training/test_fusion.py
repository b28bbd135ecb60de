"""Fused nets have no batch norms and no branches left and the same outputs; a fusion that changes them is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.recipe import NetConfig
from edgeseg.spec import Spec
from edgeseg.training import nets, onnx_export
from edgeseg.training.fusion import fuse
from edgeseg.training.module_trace import relative_difference
from edgeseg.training.norm_folding import fold_into

SIZE = (64, 96)
slow = pytest.mark.slow
# The second number: how many blocks have branches to merge.
NETS = [
    (NetConfig("lite", width=0.5), 0),
    (NetConfig("ddrnet", width=0.5), 0),
    (NetConfig("lite", "tu-efficientvit_b0"), 0),
    (NetConfig("lite", "tu-repghostnet_050"), 24),
    pytest.param(NetConfig("fpn", "tu-mobilenetv3_small_050"), 0, marks=slow),
    pytest.param(NetConfig("liteseg", width=0.5), 0, marks=slow),
    pytest.param(NetConfig("hrnet", "tu-hrnet_w18_small", width=0.25), 0, marks=slow),
    pytest.param(NetConfig("unet", "resnet18"), 0, marks=slow),
    pytest.param(NetConfig("deeplabv3plus", "tu-tf_efficientnet_lite0"), 0, marks=slow),
    pytest.param(NetConfig("pspnet", "tu-resnet10t"), 0, marks=slow),
    pytest.param(NetConfig("segformer", "mit_b0"), 0, marks=slow),
    pytest.param(NetConfig("linknet", "tu-regnetx_002"), 0, marks=slow),
    pytest.param(NetConfig("fpn", "mobileone_s0"), 43, marks=slow),
    pytest.param(NetConfig("fpn", "tu-mobileone_s0"), 43, marks=slow),
    pytest.param(NetConfig("unet", "tu-repvgg_a0"), 22, marks=slow),
    pytest.param(NetConfig("fcn", "tu-repvit_m0_9"), 83, marks=slow),
]


def name(value: object) -> str | None:
    return f"{value.arch}-{value.encoder}".rstrip("-") if isinstance(value, NetConfig) else None


def image() -> Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(3))


def trained(model: nn.Module) -> nn.Module:
    """With batch norms that do something."""
    random = torch.Generator().manual_seed(1)
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.normal_(0, 0.3, generator=random)
            norm.running_var.uniform_(0.5, 2, generator=random)
            if norm.affine:
                norm.weight.data.uniform_(0.5, 1.5, generator=random)
                norm.bias.data.normal_(0, 0.3, generator=random)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())


@pytest.mark.parametrize(("net", "blocks"), NETS, ids=name)
def test_a_fused_net_has_the_same_outputs(net: NetConfig, blocks: int) -> None:
    torch.manual_seed(0)
    model = trained(nets.build(net, 5))
    before = norms(model)
    fused = fuse(model, SIZE)
    assert fused.batchnorms == (before, 0) and before > 0
    assert norms(model) == before, "the original is untouched"
    assert norms(fused.model) == 0 and fused.unfused == {}
    assert len(fused.merged) == blocks
    with torch.inference_mode():
        assert relative_difference(fused.model(image()), model(image())) < 1e-5
    spec = Spec(*SIZE, tuple("abcde"))
    assert onnx_export.parity(model, onnx_export.to_onnx(fused.model, spec), spec) < 1e-4


class Small(nn.Module):
    """Layers to break: their order and use is up to the subclass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class ReadTwice(Small):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.norm(x) + x


class SharedConv(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.conv(x.flip(1))


class Alone(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.relu(self.conv(x)))


class Unused(Small):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (ReadTwice, "used more than once"),
        (SharedConv, "used more than once"),
        (Alone, "does not follow a convolution"),
        (Unused, "never runs"),
    ],
)
def test_a_batch_norm_that_cannot_be_folded_stays_and_is_named(kind: type[Small], why: str) -> None:
    model = trained(kind())
    fused = fuse(model, SIZE)
    assert fused.batchnorms == (1, 1)
    assert why in fused.unfused["norm"]
    with torch.inference_mode():
        assert torch.equal(fused.model(image()), model(image()))


class Sensitive(Small):
    """Looks at its own parts: no fusion can know that."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 if isinstance(self.norm, nn.BatchNorm2d) else 2)


class Whole(nn.Module):
    def __init__(self, part: nn.Module):
        super().__init__()
        self.first, self.part = Small(), part

    def forward(self, x: Tensor) -> Tensor:
        return self.part(self.first(x)[:, :3])


def test_a_fusion_that_changes_the_outputs_is_refused() -> None:
    message = r"Fusing moves the outputs by 1 of the largest; the first module that differs is part\.\nExpected at most"
    with pytest.raises(EdgesegError, match=message):
        fuse(trained(Whole(Sensitive())), SIZE)


class Branches(Small):
    """Two branches that it offers to merge, rightly or not."""

    def __init__(self, right: bool):
        super().__init__()
        self.right = right
        self.other: nn.Module = nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x) + self.other(x)) if hasattr(self, "other") else self.norm(self.conv(x))

    def reparameterize(self) -> None:
        if self.right:
            bias = nn.Parameter(self.other.bias.data)
            self.conv.weight.data += F.pad(self.other.weight.data, (1, 1, 1, 1))
            self.conv.register_parameter("bias", bias)
        del self.other


@pytest.mark.parametrize("right", [True, False])
def test_a_block_is_merged_only_if_its_output_stays_the_same(right: bool) -> None:
    torch.manual_seed(0)
    model = trained(Whole(Branches(right)))
    fused = fuse(model, SIZE)
    assert fused.merged == (("part",) if right else ())
    assert fused.batchnorms == ((2, 0) if right else (2, 1))
    assert right or "merging it moves its output by" in fused.unfused["part"]
    with torch.inference_mode():
        assert relative_difference(fused.model(image()), model(image())) < 1e-5


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_folding_by_kind_and_groups(kind: type[nn.Conv2d], groups: int) -> None:
    torch.manual_seed(0)
    layer, norm = kind(4, 8, 3, groups=groups, bias=groups > 1), nn.BatchNorm2d(8)
    pair = trained(nn.Sequential(layer, norm))
    x = torch.randn(2, 4, 7, 9)
    with torch.no_grad():
        expected = pair(x)
        fold_into(layer, norm)
        assert relative_difference(layer(x), expected) < 1e-6
