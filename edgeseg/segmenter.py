"""Segmenter: the one path from frame to class map. run, eval, bench, gate and serve all go through it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import EdgesegError
from edgeseg.fit import fit_frame
from edgeseg.heads import DetailedHead, Head, Outputs
from edgeseg.images import Image, read_image, turn
from edgeseg.result import Frame, Result
from edgeseg.results.common import BundleIdentity
from edgeseg.spec import Spec

MODES = ("latency", "throughput")
ORIENTATION = 0x0112  # of EXIF
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


class PilImage(Protocol):
    """What is used of PIL.Image.Image, so that PIL need not be installed."""

    def getexif(self) -> Any: ...
    def convert(self, mode: str) -> Any: ...


Picture: TypeAlias = Image | Path | str | PilImage


def as_frame(image: Picture) -> Frame:
    """A Frame of what people have: an array, a path, or a PIL image (turned as its EXIF orientation says)."""
    if isinstance(image, (str, Path)):
        path = Path(image)
        return Frame(read_image(path), source=path.stem)
    if not isinstance(image, np.ndarray):
        rgb = np.asarray(image.convert("RGB"))
        return Frame(turn(np.ascontiguousarray(rgb[..., ::-1]), image.getexif().get(ORIENTATION, 1)))
    return Frame(image)


class Segmenter:
    """A Spec, an Engine and a Head: frames in, class maps out, in order, timed stage by stage.

    One thread may submit() while another collect()s, as the streaming loop does; more than one of either may not.
    `bundle`: what was opened, None where it was no bundle. `backend`: what runs it, "through BACKEND" where that is not
    its own. `margin`: of every result, or, with a number, of every n-th. Results of a call keep what their class map at
    the frame's own size is made from, others only after keep_detail(): it takes about 0.1 ms a frame.
    """

    def __init__(
        self,
        spec: Spec,
        engine: Engine,
        head: Head,
        margin: int = False,
        bundle: BundleIdentity | None = None,
        backend: str = "",
    ):
        self.bundle = bundle
        self.backend = backend
        self.spec = spec
        self.engine = engine
        self.head = head
        self.margin = margin
        self._detailed = head if isinstance(head, DetailedHead) else None
        self._detail = False
        self._submitted = 0
        self._frames: list[Image] = [engine.inputs(slot)[FRAME] for slot in range(engine.slots)]
        self._free = deque(range(engine.slots))
        self._busy: deque[tuple[int, Frame, bool, float, float]] = deque()

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

    def keep_detail(self) -> None:
        """Have results keep what their class map at the frame's own size is made from."""
        self._detail = True

    def submit(self, frame: Frame, margin: bool | None = None) -> None:
        """Start a frame. Raises RuntimeError when every slot is in flight: collect() first.

        `margin`: whether its result has one, if not as the segmenter was opened.

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
        self._submitted += 1
        due = self.margin > 0 and self._submitted % self.margin == 0
        self._busy.append((slot, frame, due if margin is None else margin, started - begin, started))

    def collect(self, adjust: Callable[[Outputs], Outputs] | None = None) -> Result:
        """Wait for the oldest frame in flight. `adjust` gives the head other outputs than the engine's."""
        return self._collect(adjust, self._detail)

    def _collect(self, adjust: Callable[[Outputs], Outputs] | None, with_detail: bool) -> Result:
        slot, frame, margin, resized, started = self._busy.popleft()
        try:
            outputs = self.engine.wait(slot)
            inferred = time.perf_counter()
            outputs = adjust(outputs) if adjust else outputs
            prediction = self.head.decode(outputs, margin)
            detail = self._detailed.detail(outputs) if with_detail and self._detailed else None
        finally:
            self._free.append(slot)
        done = time.perf_counter()
        return Result(
            frame,
            prediction.classmap,
            {"resize": resized, "infer": inferred - started, "mask": done - inferred},
            prediction.margin,
            self.spec,
            detail=detail,
            panoptic=prediction.panoptic,
        )

    @overload
    def __call__(self, image: Picture) -> Result: ...
    @overload
    def __call__(self, image: list[Picture]) -> list[Result]: ...
    def __call__(self, image: Picture | list[Picture]) -> Result | list[Result]:
        """One frame, start to finish: an array [H, W, 3] uint8 BGR, the path of an image, or a PIL image; or a list of
        such.

        FileError for a file that cannot be read, ValueError for an array of another kind.
        """
        if isinstance(image, list):
            return [self(one) for one in image]
        self.submit(as_frame(image))
        return self._collect(None, with_detail=True)

    def stream(self, frames: Iterable[Frame]) -> Iterator[Result]:
        """Results in order with every slot kept busy; for sources that always have a next frame (files, folders)."""
        for frame in frames:
            if self.full:
                yield self.collect()
            self.submit(frame)
        while self._busy:
            yield self.collect()
