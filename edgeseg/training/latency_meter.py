"""The latency of a torch net on a recipe's target, beside that of the net it was pruned from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from edgeseg.errors import EdgesegError
from edgeseg.profiling import measure
from edgeseg.profiling.layer import Layer
from edgeseg.profiling.measure import LatencyComparison
from edgeseg.profiling.table import LatencyTable, networks_key
from edgeseg.recipe import Recipe
from edgeseg.results.stage import PrunedLatency
from edgeseg.spec import Spec
from edgeseg.training.complexity import layer_shapes
from edgeseg.training.onnx_export import to_onnx

if TYPE_CHECKING:
    from onnx import ModelProto

SLOWER = 1.05  # times the parent's latency; below that, two engines of one net differ as much
LEAST_MS = 0.05  # as do two calls of one engine: it takes that long to start one, and no channel can be blamed


class LatencyMeter:
    """Measures nets beside `parent` on the first target that the recipe compiles for.

    All figures are stored in the file `path`, so that a resumed run decides on the same ones. `unavailable_reason`:
    why nothing can be measured on this machine, or "".
    """

    def __init__(self, recipe: Recipe, spec: Spec, parent: nn.Module, path: Path):
        self.spec, self.parent = spec, parent
        self.target, self.precision = measure.timing_target(recipe)
        self.unavailable_reason = measure.unavailable_reason(self.target)
        self.table = LatencyTable(path, self.target, self.precision, recipe.prune.round_to)

    def require_available(self) -> None:
        """EdgesegError where nothing can be measured on this machine."""
        if self.unavailable_reason:
            raise EdgesegError(
                f"Latency cannot drive the pruning here: {self.unavailable_reason}.",
                "Let MACs drive it (prune.macs, with prune.latency = 0), or name a first target that runs on this "
                "machine: edgeseg targets.",
            )

    def layer_ms(self, layer: Layer) -> float:
        """Milliseconds of a layer, from the table."""
        return self.table.ms(layer)

    def compare(self, model: nn.Module) -> PrunedLatency:
        """The latencies of `model` and its parent as whole nets, measured interleaved."""
        size = self.spec.height, self.spec.width
        key = networks_key(layer_shapes(self.parent, size).values(), layer_shapes(model, size).values())

        def compare() -> LatencyComparison:
            return measure.compare(
                self._deploy_graph(self.parent), self._deploy_graph(model), self.target, self.precision
            )

        return PrunedLatency(self.target.name, self.precision, **vars(self.table.comparison(key, compare)))

    def share(self, model: nn.Module) -> float:
        """The latency of `model` divided by its parent's."""
        return self.compare(model).share

    def require_no_slower(self, model: nn.Module) -> None:
        """EdgesegError where a pruned net is slower than its parent: its channels may be an awkward number."""
        measured = self.compare(model)
        slower = measured.share > SLOWER and measured.low > 1
        if slower and measured.ms - measured.parent_ms > LEAST_MS:
            raise EdgesegError(
                f"The pruned net takes {measured.ms:.3g} ms on {self.target.name} in {self.precision}, its parent "
                f"{measured.parent_ms:.3g} ms.",
                "Raise prune.round_to (16 or 32), or let latency drive the pruning: prune.latency instead of "
                "prune.macs.",
            )

    def _deploy_graph(self, model: nn.Module) -> ModelProto:
        import onnx

        from edgeseg import onnx_graph

        return onnx_graph.deploy_graph(onnx.load_from_string(to_onnx(model, self.spec)), self.spec).model
