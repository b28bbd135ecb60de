"""Heads: what a network's outputs mean, one module for each task, found by its file name, imported on first use.

A head module has
    open(spec, upsample) -> Head     raises BundleError where the Spec does not fit the task
and imports nothing of another head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgeseg import plugins
from edgeseg.fit import Detail
from edgeseg.panoptic import PanopticMap

Outputs = Mapping[str, NDArray[Any]]
"""What an engine gives for one frame: arrays without a batch axis, by the name of the graph's output."""


@dataclass(frozen=True)
class Prediction:
    """`classmap`: [spec.height, spec.width] uint8 class ids. `margin`: by how much each pixel's best score beats the
    second best, float32 of the same size; None where it was not requested. `panoptic`: the segments, where the task has
    any."""

    classmap: NDArray[np.uint8]
    margin: NDArray[np.float32] | None = None
    panoptic: PanopticMap | None = None


class Head(Protocol):
    outputs: tuple[str, ...]
    """The names of the outputs that it reads."""

    def decode(self, outputs: Outputs, margin: bool = False) -> Prediction:
        """The outputs are views that are valid during the call only."""
        ...


@runtime_checkable
class DetailedHead(Head, Protocol):
    """A head whose class map need not be stretched to a frame's size."""

    def detail(self, outputs: Outputs) -> Detail:
        """What gives the class map at a frame's own size, at any time."""
        ...


def names() -> list[str]:
    return plugins.names(__name__)


def get(task: str) -> ModuleType:
    """The head of a task; OptionError, naming the tasks there are, if there is none."""
    return plugins.get(__name__, "task", task)
