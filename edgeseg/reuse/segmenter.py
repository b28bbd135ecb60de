"""ReusingSegmenter: stands in for a Segmenter, and gives most frames of a video their class map by motion."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from edgeseg.errors import OptionError
from edgeseg.fit import Detail, Placement
from edgeseg.heads import Outputs
from edgeseg.heads.semantic import LOGITS, SemanticHead
from edgeseg.mask import ClassMap, agreement
from edgeseg.motion import warp
from edgeseg.result import Frame, Result
from edgeseg.results.common import ReuseCalibration
from edgeseg.reuse.policy import Policy
from edgeseg.reuse.stabilize import Stabilizer
from edgeseg.reuse.track import Step, Tracker
from edgeseg.segmenter import Segmenter

log = logging.getLogger(__name__)
AHEAD = 8  # frames that may wait behind a key frame, for each inference request


@dataclass(frozen=True)
class ReuseSummary:
    """What reuse did so far. `estimated_drop`: the loss in points of mIoU, None where nobody measures it."""

    frames: int
    key_frames: int
    estimated_drop: float | None = None

    @property
    def share(self) -> float:
        """Of the frames that went through the network, 0 to 1."""
        return self.key_frames / self.frames if self.frames else 1.0

    def to_dict(self) -> dict[str, float | None]:
        return {**vars(self), "keyframes": round(self.share, 4)}


@dataclass
class _Stream:
    policy: Policy
    stabilizer: Stabilizer | None
    tracker: Tracker = field(default_factory=Tracker)
    interval: int = 0  # frames since the latest key frame that was submitted
    key_frames: int = 0  # that were submitted
    learned: int = 0  # of them, that the policy has learned from
    latest: Result | None = None  # of the key frames that were collected
    differences: deque[tuple[float, int] | None] = field(default_factory=deque)  # to be learned from, in order


@dataclass(frozen=True)
class _Pending:
    stream: _Stream
    frame: Frame
    step: Step
    key: bool
    interval: int  # frames since the key frame before
    seconds: float  # that following the motion took


class ReusingSegmenter:
    """`policy(n)` makes the Policy of the n-th stream. `stabilize`: steady classes, see stabilize.py.

    `calibration`: of the bundle; a stream whose frames have another size is warned of, since it says little there.
    `ahead`: how many frames may wait behind a key frame: 0 for cameras, whose frames would grow old.
    Frames of one stream come in order, and all of them, or with the motion of those left out (Frame.after).
    As with a Segmenter, one thread may submit() while another collect()s.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        policy: Callable[[int], Policy],
        stabilize: bool = False,
        ahead: int = AHEAD,
        calibration: ReuseCalibration | None = None,
    ):
        if not isinstance(segmenter.head, SemanticHead):
            raise OptionError("The bundle's task is not semantic segmentation.", "Leave --reuse and --stabilize out.")
        self.segmenter = segmenter
        self.spec = segmenter.spec
        self.bundle = segmenter.bundle
        self.backend = segmenter.backend
        self.slots = segmenter.slots * (1 + ahead)
        self._policy = policy
        self._stabilize = stabilize
        self._calibration = calibration
        self._streams: dict[str, _Stream] = {}
        self._pending: deque[_Pending] = deque()
        self._engine = threading.Semaphore(segmenter.slots)
        self._frames = self._key_frames = 0

    def summary(self) -> ReuseSummary:
        """Of all streams; of their estimated losses, the largest."""
        drops = [drop for s in tuple(self._streams.values()) if (drop := s.policy.drop) is not None]
        return ReuseSummary(self._frames, self._key_frames, max(drops, default=None))

    @property
    def full(self) -> bool:
        """Whether submit() could wait."""
        return len(self._pending) >= self.slots or self.segmenter.full

    def submit(self, frame: Frame) -> None:
        """Start a frame: follow its motion, and give it to the network where its stream's policy says so.

        Waits for another thread to collect() while every inference request is busy.
        """
        begin = time.perf_counter()
        stream = self._streams.get(frame.stream) or self._first(frame)
        step = stream.tracker.follow(frame)
        stream.interval += 1
        interval, key = stream.interval, stream.policy.decide(step)
        seconds = time.perf_counter() - begin
        if key:
            self._engine.acquire()
            self._learn(stream)
            self.segmenter.submit(frame)
            stream.tracker.restart()
            stream.interval = 0
        self._pending.append(_Pending(stream, frame, step, key, interval, seconds))

    def _first(self, frame: Frame) -> _Stream:
        """The stream that begins with this frame."""
        policy = self._policy(len(self._streams))
        height, width = frame.image.shape[:2]
        known = self._calibration
        if known and policy.learns and known.size != (width, height):
            log.warning(
                "reuse was calibrated on frames of %dx%d (%s); these are %dx%d, so the estimated loss may be off",
                *known.size, known.clip, width, height,
            )  # fmt: skip
        stream = _Stream(policy, Stabilizer(self.spec) if self._stabilize else None)
        self._streams[frame.stream] = stream
        return stream

    def _learn(self, stream: _Stream) -> None:
        """From the key frames that are done by now however fast the machine is: the result must not depend on that."""
        known = stream.key_frames - self.segmenter.slots + 1
        while stream.policy.learns and stream.learned < known:
            difference = stream.differences.popleft()
            stream.learned += 1
            if difference is not None:
                stream.policy.learn(*difference)
        stream.key_frames += 1

    def collect(self) -> Result:
        """Wait for the oldest frame in flight."""
        pending = self._pending.popleft()
        self._frames += 1
        if pending.key:
            return self._of_network(pending)
        begin = time.perf_counter()
        key, step = pending.stream.latest, pending.step
        assert key is not None  # the first frame was one
        moved = warp.class_map(key.classmap, step.field, step.grid, self.spec)
        times = {"motion": pending.seconds, "mask": time.perf_counter() - begin}
        detail = _moved_detail(key, step) if key.detail else None
        return Result(pending.frame, moved, times, None, self.spec, pending.interval, detail)

    def _of_network(self, pending: _Pending) -> Result:
        stream, step, before = pending.stream, pending.step, pending.stream.latest
        self._key_frames += 1

        def steady(outputs: Outputs) -> Outputs:
            assert stream.stabilizer is not None
            logits = stream.stabilizer.steady(outputs[LOGITS], step.field, step.grid, pending.interval, step.cut)
            return {**outputs, LOGITS: logits}

        difference = None
        try:
            result = self.segmenter.collect(steady if stream.stabilizer else None)
            stream.latest = result
            if stream.policy.learns and before is not None and not step.cut:
                moved = warp.class_map(before.classmap, step.field, step.grid, self.spec)
                difference = 1 - agreement(moved, result.classmap), pending.interval
        finally:
            if stream.policy.learns:
                stream.differences.append(difference)
            self._engine.release()
        return replace(result, times={"motion": pending.seconds, **result.times})

    def stream(self, frames: Iterable[Frame]) -> Iterator[Result]:
        """Results in order, of one thread: for files."""
        for frame in frames:
            while self.full:
                yield self.collect()
            self.submit(frame)
        while self._pending:
            yield self.collect()

    def keep_detail(self) -> None:
        """As Segmenter.keep_detail."""
        self.segmenter.keep_detail()

    def close(self) -> None:
        self.segmenter.close()


def _moved_detail(key: Result, step: Step) -> Detail:
    def detail(placed: Placement) -> ClassMap:
        return warp.frame_map(placed.seen.of(key.at_frame_size()), step.field, step.grid, placed.seen)

    return detail
