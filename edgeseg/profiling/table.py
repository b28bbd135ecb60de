"""Latency table: milliseconds of layers and networks on one target, measured when first needed and kept in a file.

FILE (JSON)   {machine, target, precision, layers: {LAYER: ms}, nets: {KEY: LatencyComparison}}
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from edgeseg.files import write_bytes
from edgeseg.machine import fingerprint
from edgeseg.precision import Precision
from edgeseg.profiling import measure
from edgeseg.profiling.layer import Layer
from edgeseg.profiling.measure import LatencyComparison
from edgeseg.records import convert, read_json
from edgeseg.target import Target

log = logging.getLogger(__name__)
MEASURE_AGAIN = "Remove it to measure again."


@dataclass(frozen=True)
class Measured:
    """What the file holds besides its identity: milliseconds by layer, comparisons by networks_key."""

    layers: dict[str, float]
    nets: dict[str, LatencyComparison]


class LatencyTable:
    """Milliseconds of layers and comparisons of networks, for one target and precision on this machine.

    Numbers of channels are measured on a grid of two steps an octave, multiples of `round_to`, and interpolated between
    them. A file of another machine, other versions, another target or precision is not used.
    """

    def __init__(self, path: Path, target: Target, precision: Precision, round_to: int = 8):
        self.path, self.target, self.precision, self.round_to = path, target, precision, round_to
        self._identity: dict[str, object] = {
            "machine": asdict(fingerprint()),
            "target": target.name,
            "precision": precision,
        }
        self.measured = self._load()
        self._interpolated: dict[Layer, float] = {}

    def ms(self, layer: Layer) -> float:
        """Milliseconds of one layer; bilinear in its channels between the four points of the grid around them."""
        if layer not in self._interpolated:
            step = math.lcm(self.round_to, 1 if layer.depthwise else layer.groups)
            outputs = grid_neighbors(layer.outputs, step)
            inputs = [(layer.inputs, 1.0)] if layer.depthwise else grid_neighbors(layer.inputs, step)
            self._interpolated[layer] = sum(
                a * b * self._on_grid(layer.with_channels(i, o)) for i, a in inputs for o, b in outputs if a * b
            )
        return self._interpolated[layer]

    def comparison(self, key: str, compare: Callable[[], LatencyComparison]) -> LatencyComparison:
        """The stored comparison called `key`, measured by `compare` where there is none."""
        if key not in self.measured.nets:
            self.measured.nets[key] = compare()
            self._save()
        return self.measured.nets[key]

    def _on_grid(self, layer: Layer) -> float:
        name = str(layer)
        if name not in self.measured.layers:
            self.measured.layers[name] = measure.time_layer(layer, self.target, self.precision)
            self._save()
        return self.measured.layers[name]

    def _load(self) -> Measured:
        if not self.path.is_file():
            return Measured({}, {})
        document = read_json(self.path, "Latency table", MEASURE_AGAIN)
        if {key: document.get(key) for key in self._identity} != self._identity:
            log.info("%s is of another machine, version or target: measuring again", self.path)
            return Measured({}, {})
        return convert(document, Measured, f"Latency table {self.path} cannot be read", MEASURE_AGAIN)

    def _save(self) -> None:
        document = {**self._identity, **asdict(self.measured)}
        write_bytes(self.path, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())


@cache
def grid_neighbors(channels: int, step: int) -> list[tuple[int, float]]:
    """The neighbors on the grid of a number of channels, and their weights; below `step` it is its own neighbor."""
    if channels <= step:
        return [(channels, 1.0)]
    power = step << ((channels // step).bit_length() - 1)
    half = power + power // 2 if (power // 2) % step == 0 else power
    low, high = (half, 2 * power) if channels >= half else (power, half)
    if low == high:
        high = 2 * power
    share = (channels - low) / (high - low)
    return [(low, 1 - share), (high, share)]


def networks_key(*networks: Iterable[Layer]) -> str:
    """A digest of the layers of some networks."""
    text = json.dumps([sorted(map(str, layers)) for layers in networks])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
