"""Pruning removes whole channels down to the asked share, and leaves the classes alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeseg.errors import EdgesegError
from edgeseg.recipe import NetConfig
from edgeseg.training import nets, pruning
from edgeseg.training.export import macs_params

SIZE = (64, 96)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nets.build(NetConfig("lite", width=0.75), 5).eval()


@pytest.mark.parametrize("keep", [0.8, 0.7, 0.5])
def test_the_share_of_macs_is_met_closely(model: nn.Module, keep: float) -> None:
    before = macs_params(model, SIZE)[0]
    pruned = pruning.prune(model, SIZE, keep, round_to=4)
    assert 0.85 * keep < macs_params(pruned, SIZE)[0] / before <= keep
    assert macs_params(model, SIZE)[0] == before, "the original is untouched"
    assert pruned(torch.zeros(2, 3, *SIZE)).shape == (2, 5, *SIZE)


def test_channels_stay_multiples_of_round_to(model: nn.Module) -> None:
    pruned = pruning.prune(model, SIZE, 0.6, round_to=8)
    head = nets.head(pruned)
    assert {m.out_channels % 8 for m in pruned.modules() if isinstance(m, nn.Conv2d) and m not in head} == {0}


def test_the_least_important_channels_go_first(model: nn.Module) -> None:
    """Channels whose weights are nearly nothing can be cut without changing what the net says."""
    quiet = nets.build(NetConfig("lite", width=0.75), 5).eval()
    with torch.no_grad():
        for block in quiet.encoder.stages[3][1].first, quiet.encoder.stages[4][1].first:
            half = block[0].out_channels // 2
            for tensor in (block[0].weight, block[1].weight, block[1].bias):
                tensor[:half] *= 1e-4
        for block in quiet.encoder.stages[3][1].second, quiet.encoder.stages[4][1].second:
            block[0].weight[:, : block[0].in_channels // 2] *= 1e-4
            block[1].weight.fill_(1)
    pruned = pruning.prune(quiet, SIZE, 0.93, round_to=8)
    image = torch.randn(1, 3, *SIZE)
    assert pruned.encoder.stages[3][1].first[0].out_channels < quiet.encoder.stages[3][1].first[0].out_channels
    with torch.no_grad():
        torch.testing.assert_close(pruned(image), quiet(image), atol=1e-2, rtol=1e-2)


def test_keeping_everything_changes_nothing(model: nn.Module) -> None:
    assert macs_params(pruning.prune(model, SIZE, 1.0), SIZE) == macs_params(model, SIZE)


def test_a_share_that_cannot_be_reached(model: nn.Module) -> None:
    with pytest.raises(EdgesegError, match=r"cannot bring this net to 1%.*\nRaise prune\.macs"):
        pruning.prune(model, SIZE, 0.01)
