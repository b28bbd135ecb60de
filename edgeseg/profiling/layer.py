"""Layer: the shape of a convolution, which decides what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

Pair = tuple[int, int]


@dataclass(frozen=True)
class Layer:
    """A convolution: [1, inputs, *size] -> [1, outputs, *out]; a linear layer is one of kernel 1 on its rows."""

    inputs: int
    outputs: int
    size: Pair
    out: Pair
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    groups: int = 1
    transposed: bool = False

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one frame."""
        positions = math.prod(self.size if self.transposed else self.out)
        return self.inputs * self.outputs // self.groups * math.prod(self.kernel) * positions

    @property
    def depthwise(self) -> bool:
        return 1 < self.groups == self.inputs == self.outputs

    def with_channels(self, inputs: int, outputs: int) -> Layer:
        """The same layer with other numbers of channels; a depthwise one stays depthwise."""
        groups = outputs if self.depthwise else self.groups
        return replace(self, inputs=groups if self.depthwise else inputs, outputs=outputs, groups=groups)

    def __str__(self) -> str:
        """Its key in the latency table."""
        kernel, stride, dilation, size, out = (
            f"{a}x{b}" for a, b in (self.kernel, self.stride, self.dilation, self.size, self.out)
        )
        kind = "transposed" if self.transposed else "conv"
        return f"{kind} {self.inputs}>{self.outputs} k{kernel} s{stride} d{dilation} g{self.groups} {size}>{out}"
