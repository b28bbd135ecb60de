"""Fusion: an equivalent net with fewer layers. Branches are merged, batch norms folded, and the outputs compared."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeseg.errors import EdgesegError
from edgeseg.training.branch_merging import merge_branches
from edgeseg.training.module_trace import relative_difference, trace_modules
from edgeseg.training.norm_folding import LAYERS, count_norms, fold_norms

TOLERANCE = 1e-5  # of the largest output


@dataclass(frozen=True)
class Fused:
    """`model`: in eval mode. `batchnorms`: how many before and after. `merged`: the blocks whose branches were merged.

    `unfused`: name -> why that block or batch norm stays as it was. `error`: largest difference of the outputs on
    noise, relative to the largest output.
    """

    model: nn.Module
    batchnorms: tuple[int, int]
    merged: tuple[str, ...]
    unfused: dict[str, str]
    error: float


@torch.no_grad()
def fuse(model: nn.Module, size: tuple[int, int]) -> Fused:
    """A fused copy of a net of images [N, 3, height, width], compared with the original at `size` (height, width).

    A block that offers to merge its branches must give the same output as before on the input that it gets, or it stays
    as it was. Batch norms are folded in float64. EdgesegError, naming the first module that differs, where the outputs
    of the whole net move by more than 1e-5 of the largest.
    """
    before = copy.deepcopy(model).eval()
    after = copy.deepcopy(before)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    merged, unmerged = merge_branches(after, image, TOLERANCE)
    unfolded = fold_norms(after, image)
    error = relative_difference(after(image), before(image))
    if not error <= TOLERANCE:
        name = _first_difference(before, after, image)
        raise EdgesegError(
            f"Fusing moves the outputs by {error:.2g} of the largest; the first module that differs is {name}.",
            f"Expected at most {TOLERANCE:g}: use this net unfused, and report its architecture.",
        )
    return Fused(after, (count_norms(before), count_norms(after)), tuple(merged), unmerged | unfolded, error)


def _first_difference(before: nn.Module, after: nn.Module, image: Tensor) -> str:
    """The first module to finish that is in both nets and differs.

    Layers and sequences of layers are skipped: a batch norm may have been folded into them.
    """
    bare = (*LAYERS, nn.Sequential)
    names = {n for n, m in before.named_modules() if n and not isinstance(m, bare)} & dict(after.named_modules()).keys()
    expected, found = (trace_modules(model, image, names) for model in (before, after))
    differing = (
        n for n in expected if n in found and not relative_difference(found[n][2], expected[n][2]) <= TOLERANCE
    )
    return next(differing, type(before).__name__)
