"""Segmenter: the one path from frame to class map. run, eval, bench, gate and serve all go through it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import EdgesegError
from edgeseg.fit import fit_frame
from edgeseg.heads import Head, Outputs
from edgeseg.images import Image
from edgeseg.results.common import BundleIdentity
from edgeseg.spec import Spec

MODES = ("latency", "throughput")
FRAME = "frame"  # the engine input that takes the camera's frame


class Engine(Protocol):
    """A compiled model with `slots` inference requests, and named inputs and outputs.

    Fill `inputs(slot)` (arrays by name, views of the request's own memory; FRAME is [H, W, 3] uint8 BGR),
    `start(slot)`, then `wait(slot)` for the outputs (arrays by name, float32 without a batch axis, such as logits
    [C, h, w]; views that are valid until that slot starts again).
    """

    slots: int

    def inputs(self, slot: int) -> Mapping[str, NDArray[Any]]: ...
    def start(self, slot: int) -> None: ...
    def wait(self, slot: int) -> Outputs: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Frame:
    """An image of a source: [H, W, 3] uint8 BGR, its number, and when it was captured (time.monotonic seconds).

    `pts`: its place on the media's own time axis in seconds, where the source has one. `age_from` says what `captured`
    is: `capture` (the camera's own clock), `arrival` (of its data here) or `read` (from a file).
    """

    image: Image
    index: int = 0
    captured: float = field(default_factory=time.monotonic)
    source: str = ""
    pts: float | None = None
    age_from: str = "read"


@dataclass(frozen=True)
class Result:
    """A frame, its class map ([spec.height, spec.width] uint8) and the seconds each stage took.

    `times`: resize, infer (from start to finish, waiting behind other requests included), mask. `margin` (if the
    Segmenter was opened with it): by how much each pixel's best logit beats the second, like classmap but float32.
    """

    frame: Frame
    classmap: Image
    times: dict[str, float]
    margin: NDArray[np.float32] | None = None


class Segmenter:
    """A Spec, an Engine and a Head: frames in, class maps out, in order, timed stage by stage.

    One thread may submit() while another collect()s, as the streaming loop does; more than one of either may not.
    `bundle`: what was opened, None where it was no bundle. `backend`: what runs it, "through BACKEND" where that is not
    its own.
    """

    def __init__(
        self,
        spec: Spec,
        engine: Engine,
        head: Head,
        margin: bool = False,
        bundle: BundleIdentity | None = None,
        backend: str = "",
    ):
        self.bundle = bundle
        self.backend = backend
        self.spec = spec
        self.engine = engine
        self.head = head
        self.margin = margin
        self._frames: list[Image] = [engine.inputs(slot)[FRAME] for slot in range(engine.slots)]
        self._free = deque(range(engine.slots))
        self._busy: deque[tuple[int, Frame, float, float]] = deque()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        try:
            while self._busy:
                with suppress(EdgesegError):  # of a frame that nobody asks for any more
                    self.engine.wait(self._busy.popleft()[0])
        finally:
            self.engine.close()

    @property
    def slots(self) -> int:
        """How many frames may be in flight."""
        return self.engine.slots

    @property
    def in_flight(self) -> int:
        return len(self._busy)

    @property
    def full(self) -> bool:
        return not self._free

    def submit(self, frame: Frame) -> None:
        """Start a frame. Raises RuntimeError when every slot is in flight: collect() first.

        Raises ValueError for an image that is not [H, W, 3] uint8.
        """
        if not self._free:
            raise RuntimeError("every inference slot is in flight; collect() a result first")
        if frame.image.ndim != 3 or frame.image.shape[2] != 3 or frame.image.dtype != np.uint8:
            kind = f"{frame.image.shape} {frame.image.dtype}"
            raise ValueError(f"a frame is {kind}; expected [H, W, 3] uint8 BGR")  # OpenCV would resize it elsewhere
        slot = self._free.popleft()
        begin = time.perf_counter()
        try:
            fit_frame(frame.image, self.spec, into=self._frames[slot])
            started = time.perf_counter()
            self.engine.start(slot)
        except BaseException:
            self._free.append(slot)
            raise
        self._busy.append((slot, frame, started - begin, started))

    def collect(self) -> Result:
        """Wait for the oldest frame in flight."""
        slot, frame, resized, started = self._busy.popleft()
        try:
            outputs = self.engine.wait(slot)
            inferred = time.perf_counter()
            prediction = self.head.decode(outputs, self.margin)
        finally:
            self._free.append(slot)
        done = time.perf_counter()
        return Result(
            frame,
            prediction.classmap,
            {"resize": resized, "infer": inferred - started, "mask": done - inferred},
            prediction.margin,
        )

    def __call__(self, image: Image) -> Result:
        """One frame, start to finish."""
        self.submit(Frame(image))
        return self.collect()

    def stream(self, frames: Iterable[Frame]) -> Iterator[Result]:
        """Results in order with every slot kept busy; for sources that always have a next frame (files, folders)."""
        for frame in frames:
            if self.full:
                yield self.collect()
            self.submit(frame)
        while self._busy:
            yield self.collect()
