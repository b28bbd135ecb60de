"""INT8 of one deploy graph for one target: its variants quantized, compiled and measured where they will run."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from onnx import ModelProto

from edgeseg import backends
from edgeseg.bundle import Manifest, seal
from edgeseg.errors import EdgesegError
from edgeseg.images import Image
from edgeseg.onnx_graph.index import GraphIndex
from edgeseg.onnx_graph.layer_names import layers
from edgeseg.quantization import schemes, sensitivity
from edgeseg.quantization.quantize import prepare, quantize_prepared, resolve_ranges
from edgeseg.quantization.variants import Score, Variant, choose, score
from edgeseg.recipe import PTQ
from edgeseg.results.search import LayerNoise
from edgeseg.runtime import open_segmenter
from edgeseg.target import Target

logger = logging.getLogger(__name__)
RANK_SECONDS = 60.0
RANK_FRAMES = 2
FLOAT_SHARE = 0.1  # of the layers: no more are left float beside the last
FEWEST = 2  # but so many of a small network


class Int8Search:
    """Finds the variant of `model`, a deploy graph, whose class maps of `frames`, of the Spec's size, are nearest to
    `expected`, the float ones. `folder`: for its files. `manifest`: of the bundle to come."""

    def __init__(
        self, model: ModelProto, folder: Path, target: Target, manifest: Manifest, calibration: Iterable[Image],
        frames: list[Image], expected: list[Image], log: Callable[[str], None],
    ):  # fmt: skip
        self.model, self.folder, self.target, self.manifest = model, folder, target, manifest
        self.calibration = list(calibration)
        self.frames, self.expected, self.log = frames, expected, log
        self.files: dict[Variant, Path] = {}
        self._prepared: dict[tuple[bool, bool, tuple[str, ...]], Path] = {}  # as ranges do not matter there

    def run(self, ptq: PTQ, excluded: tuple[str, ...]) -> tuple[Path, Variant]:
        """The quantized graph's file, and what it is. Without ranges "auto" there is nothing to choose."""
        resolved = resolve_ranges(ptq, self.target.quantizer)
        plain = Variant(PTQ(resolved.ranges, resolved.bias, resolved.equalize), excluded)
        ranges = schemes.get(self.target.quantizer).ranges
        if ptq.ranges != "auto" or len(ranges) == 1:
            return self._quantize(plain), plain
        best, _ = choose(ranges, plain, self.measure, self.exclusions, self.log)
        if added := [layer for layer in best.excluded if layer not in excluded]:
            logger.warning(
                "%d of %d layers stay float, without which INT8 agrees too little: %s",
                len(added), len(layers(self.model)), ", ".join(added),
            )  # fmt: skip
        return self.files[best], best

    def measure(self, variant: Variant) -> Score:
        quantized = self._quantize(variant)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            backends.get(self.target.backend).compile(quantized, Path(folder), self.target, self.manifest.precision)
            seal(Path(folder), replace(self.manifest, ptq=variant.ptq, kept=variant.excluded))
            with open_segmenter(Path(folder), backend=self.manifest.proved_by) as segmenter:
                found = [segmenter(frame).classmap for frame in self.frames]
        return score(found, self.expected, len(self.manifest.spec.classes))

    def _quantize(self, variant: Variant) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        scheme, ptq, excluded = self.target.quantizer, variant.ptq, frozenset(variant.excluded)
        key = (ptq.equalize, ptq.bias, variant.excluded)
        if key not in self._prepared:
            self._prepared[key] = prepare(self._graph, self.calibration, scheme, folder, excluded, ptq)
        self.files[variant] = quantize_prepared(
            self._prepared[key], self.calibration, scheme, folder, self.target.preset, excluded, ptq
        )
        return self.files[variant]

    @cached_property
    def _graph(self) -> Path:
        path = self.folder / "deploy.onnx"
        path.write_bytes(self.model.SerializeToString())
        return path

    def exclusions(self, base: Variant) -> Iterator[Variant]:
        """The last layer, whose rounding nothing averages out; then with it the noisiest, one, two, four, ..."""
        first = tuple(dict.fromkeys((*base.excluded, *last_layers(self.model))))
        yield replace(base, excluded=first)
        others = [row.layer for row in self.ranking if row.layer not in first]
        k = 1
        while k <= min(len(others), max(FEWEST, int(len(layers(self.model)) * FLOAT_SHARE))):
            yield replace(base, excluded=(*first, *others[:k]))
            k *= 2

    @cached_property
    def ranking(self) -> list[LayerNoise]:
        """The layers that INT8 hurts most, as far as RANK_SECONDS allow; none where none can be measured alone."""
        end = time.monotonic() + RANK_SECONDS

        def each(index: int, count: int, measure: Callable[[], float]) -> float | None:
            return measure() if time.monotonic() < end else None

        try:
            return sensitivity.rank_model(self.model, self.frames[:RANK_FRAMES], self.target.quantizer, each)
        except EdgesegError:
            return []


def last_layers(model: ModelProto) -> tuple[str, ...]:
    """The names of the layers that compute the logits, with no other layer behind them."""
    index = GraphIndex(model)
    names = {node.name for node in layers(model)}
    found, pending = [], [output.name for output in model.graph.output]
    while pending:
        node = index.producer(pending.pop())
        if node is not None and node.name in names:
            found.append(node.name)
        elif node is not None:
            pending += node.input
    return tuple(dict.fromkeys(found))
