"""Parity matrix: one network on every backend and precision, against the network itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg import backends, mask
from edgeseg.errors import EdgesegError
from edgeseg.evaluation import reading
from edgeseg.evaluation.metrics import Counts
from edgeseg.heads import semantic
from edgeseg.images import Image
from edgeseg.mask import agreement
from edgeseg.precision import Precision
from edgeseg.runtime import open_segmenter
from edgeseg.spec import Spec
from edgeseg.target import Target

Pair = tuple[Target, Precision]


@dataclass(frozen=True)
class Reference:
    """The network's own output for some frames: class maps, logits at full size where it has any, and the runtime."""

    classmaps: list[Image]
    logits: list[NDArray[np.float32]] | None
    runtime: str

    @classmethod
    def of_outputs(cls, outputs: Iterable[NDArray[Any]], runtime: str, spec: Spec) -> Reference:
        """From raw outputs [1, C, h, w] (logits) or class ids."""
        maps, logits = [], []
        for out in outputs:
            maps.append(reading.class_map(out, spec))
            if reading.has_logits(out, spec):
                full = np.asarray(out, np.float32)[0]
                logits.append(mask.upsampled(full, spec.height, spec.width, "half_pixel"))
        return cls(maps, logits if len(logits) == len(maps) else None, runtime)


@dataclass(frozen=True)
class Agreement:
    """How a bundle compares with the reference: shares of pixels, `miou` with the reference's class maps as truth, the
    largest and mean difference of logits (None where the reference has none), the median milliseconds of a frame."""

    agreement: float
    worst: float
    miou: float | None
    logits_max: float | None
    logits_mean: float | None
    infer_ms: float


@dataclass(frozen=True)
class MatrixRow:
    """One target and precision: what was measured, or why it was not (`missing`)."""

    target: str
    precision: str
    expected: float
    measured: Agreement | None
    missing: str = ""

    @property
    def ok(self) -> bool:
        return self.measured is not None and self.measured.agreement >= self.expected

    def to_dict(self) -> dict[str, Any]:
        row = {"target": self.target, "precision": self.precision}
        if self.measured is None:
            return {**row, "missing": self.missing}
        return {**row, **vars(self.measured), "expected": self.expected, "ok": self.ok}


def matrix(
    build: Callable[[Target, Precision], Path], pairs: list[Pair], reference: Reference, frames: list[Image]
) -> list[MatrixRow]:
    """A row for each (target, precision) that can run here; the others say why not.

    `build` makes a bundle. `frames` are [H, W, 3] uint8 BGR of the Spec's size, those of the reference.
    """
    rows = []
    for target, precision in pairs:
        reason = backends.missing(target)
        try:
            measured = None if reason else compare(build(target, precision), reference, frames)
        except EdgesegError as error:
            measured, reason = None, error.what
        rows.append(MatrixRow(target.name, precision.value, precision.least_agreement, measured, reason))
    return rows


def compare(bundle: Path, reference: Reference, frames: list[Image]) -> Agreement:
    """Agreement of class maps and difference of logits (at full size) of a bundle and the reference.

    `miou` is that of the bundle's class maps with the reference's as truth; `infer_ms` the median of one frame.
    """
    shares, highest, means, seconds = [], [], [], []
    with open_segmenter(bundle) as segmenter:
        spec, engine, head = segmenter.spec, segmenter.engine, semantic.of(segmenter.head)
        counts = Counts(len(spec.classes))
        for i, frame in enumerate(frames):
            engine.inputs(0)["frame"][:] = frame
            begin = time.perf_counter()
            engine.start(0)
            outputs = engine.wait(0)
            seconds.append(time.perf_counter() - begin)
            classmap = head.decode(outputs).classmap
            shares.append(agreement(classmap, reference.classmaps[i]))
            counts.add(reference.classmaps[i], classmap)
            if reference.logits is not None:
                error = np.abs(head.full_logits(outputs) - reference.logits[i])
                highest.append(float(error.max()))
                means.append(float(error.mean()))
    return Agreement(
        agreement=float(np.mean(shares)),
        worst=float(np.min(shares)),
        miou=counts.metrics(spec.classes).miou,
        logits_max=max(highest) if highest else None,
        logits_mean=float(np.mean(means)) if means else None,
        infer_ms=1e3 * float(np.median(seconds)),
    )
