"""Speed: what a net of torch takes on a recipe's target, beside the net it was cut from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from edgeseg.errors import EdgesegError
from edgeseg.profiling import latency
from edgeseg.profiling.latency import Layer, Table
from edgeseg.recipe import Recipe
from edgeseg.spec import Spec
from edgeseg.training.export import to_onnx
from edgeseg.training.pruning import layers

SLOWER = 1.05  # times the parent's latency; less is within what two engines of one net differ


class Stopwatch:
    """Times nets against `parent` on what the recipe compiles for first. All figures go into the file `path`, so that
    a run that continues decides as it did before. `why`: why nothing can be timed here, or ""."""

    def __init__(self, recipe: Recipe, spec: Spec, parent: nn.Module, path: Path):
        self.spec, self.parent = spec, parent
        self.target, self.precision = latency.timing_target(recipe)
        self.why = latency.unavailable_reason(self.target)
        self.table = Table(path, self.target, self.precision, recipe.prune.round_to)

    @property
    def where(self) -> str:
        return f"{self.target.name} in {self.precision}"

    def require(self) -> None:
        """EdgesegError where nothing can be timed here."""
        if self.why:
            raise EdgesegError(
                f"Latency cannot drive the pruning here: {self.why}.",
                "Let multiply-accumulates drive (prune.macs, with prune.latency = 0), or name a first target that "
                "runs here: edgeseg targets.",
            )

    def price(self, layer: Layer) -> float:
        """Milliseconds of a layer, from the table."""
        return self.table.ms(layer)

    def race(self, model: nn.Module) -> dict[str, float]:
        """{parent_ms, ms, share, low} of the whole nets, see latency.race."""
        size = self.spec.height, self.spec.width
        key = latency.key_of(layers(self.parent, size).values(), layers(model, size).values())

        def measure() -> dict[str, float]:
            return latency.race(self._deployed(self.parent), self._deployed(model), self.target, self.precision)

        return self.table.share(key, measure)

    def share(self, model: nn.Module) -> float:
        """The latency of `model` as a share of its parent's."""
        return self.race(model)["share"]

    def require_no_slower(self, model: nn.Module) -> None:
        """EdgesegError where a pruned net is slower than its parent: fewer channels can be the wrong number of them."""
        found = self.race(model)
        if found["share"] > SLOWER and found["low"] > 1:
            raise EdgesegError(
                f"The pruned net takes {found['ms']:.3g} ms on {self.where}, its parent {found['parent_ms']:.3g} ms.",
                "Raise prune.round_to (16 or 32), or let latency drive: prune.latency instead of prune.macs.",
            )

    def _deployed(self, model: nn.Module) -> Any:
        import onnx

        from edgeseg import onnx_graph

        return onnx_graph.deploy_graph(onnx.load_from_string(to_onnx(model, self.spec)), self.spec).model
