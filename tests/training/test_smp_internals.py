"""smp's internals that edgeseg relies on are there; where they are not, the error names the versions that have them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.decoders.pspnet import decoder as pspnet
from torch import nn

from edgeseg.errors import EdgesegError
from edgeseg.training import smp_internals


@pytest.mark.parametrize(("arch", "factor"), [("unet", None), ("fpn", 4.0), ("pspnet", 8.0), ("upernet", 4.0)])
def test_the_last_step_is_replaced_by_a_plain_resize(arch: str, factor: float | None) -> None:
    model: Any = smp_internals.create(arch, "tu-resnet10t", 3)
    last = model.segmentation_head[1]
    if factor is None:
        assert isinstance(last, nn.Identity)
    else:
        assert isinstance(last, smp_internals.Upsample) and last.scale_factor == factor and not last.align_corners
    assert not [m for m in model.modules() if isinstance(m, (pspnet.PSPBlock, nn.UpsamplingBilinear2d))]
    assert model(torch.zeros(2, 3, 64, 96)).shape == (2, 3, 64, 96)


def test_versions_are_those_of_pyproject() -> None:
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'"segmentation-models-pytorch{smp_internals.VERSIONS}"' in pyproject


@pytest.mark.parametrize(
    ("owner", "name"), [(pspnet, "PSPBlock"), (smp, "MODEL_ARCHITECTURES_MAPPING"), (smp.encoders, "encoders")]
)
def test_an_smp_without_an_internal(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(owner, name)
    expected = re.escape("pip install 'segmentation-models-pytorch>=0.5,<0.7'")
    with pytest.raises(EdgesegError, match=rf"segmentation-models-pytorch \d.* has no {name}, .*\n.*{expected}"):
        smp_internals.architectures()
        smp_internals.encoders()
        smp_internals.create("unet", "resnet18", 3)


def test_an_smp_with_another_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        smp, "create_model", lambda *args, **kwargs: nn.ModuleDict({"segmentation_head": nn.Identity()})
    )
    with pytest.raises(EdgesegError, match=r"has no segmentation_head\[1\], the last upsampling"):
        smp_internals.create("unet", "resnet18", 3)
