"""The parts of a soak: what its script of faults acts on and what measures."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeseg.errors import StreamError
from edgeseg.heads import Outputs
from edgeseg.images import Image
from edgeseg.result import Result
from edgeseg.segmenter import Engine
from edgeseg.stream.loop import Run
from edgeseg.stream.metrics_server import resident_bytes
from edgeseg.stream.sinks import Sink
from edgeseg.stream.soak.loopback import LoopbackCamera, read_stamp
from edgeseg.stream.soak.objectives import Measurements, MemorySample
from edgeseg.stream.supervise import SupervisedSource
from edgeseg.stream.timings import LatestValues

FRESH_SECONDS = 1.0
MIB = 2.0**20


@dataclass(frozen=True)
class Timing:
    """Seconds: how long the first fault (`absent`) and the others (from, to) last, the `calm` between them, between two
    `memory` samples, and the `watchdog` of the engine. The script, and what a camera waits for before it is connected
    again, go `speed` times as fast as that; images do not.
    """

    absent: float = 3.0
    fault: tuple[float, float] = (2.5, 4.5)
    calm: float = 4.0
    memory: float = 0.5
    watchdog: float = 5.0
    speed: float = 1.0


class AgeObserver(Sink):
    """Records when the latest result came and how old its image was. `leaked`, if it is a list, keeps every frame."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = 0
        self.latest = 0.0
        self.stamped = 0.0
        self.ages = LatestValues()
        self.classmap: Image | None = None
        self.leaked: list[Image] | None = None

    def write(self, result: Result, image: Image | None) -> None:
        now = time.monotonic()
        stamped = read_stamp(result.frame.image) / 1e3
        if stamped != self.stamped:  # a camera that repeats an old image is `still`; that is not our delay
            self.ages.add(now - stamped)
        self.stamped = stamped
        self.classmap = result.classmap
        self.frames += 1
        self.latest = now
        if self.leaked is not None:
            self.leaked.append(result.frame.image.copy())


class FaultySink(Sink):
    """Writes a line per result to a device; `slow` makes it wait, `full` turns the device into one without space."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = threading.Event()
        self.full = threading.Event()

    def write(self, result: Result, image: Image | None) -> None:
        if self.slow.is_set():
            time.sleep(0.5)
        try:
            Path("/dev/full" if self.full.is_set() else "/dev/null").write_text(f"{result.frame.index}\n")
        except OSError as error:
            raise StreamError(f"Cannot write: {error.strerror}.") from error


@dataclass
class SoakSetup:
    """Everything the script of faults acts on and measures. `problem` says why the script itself failed."""

    front: LoopbackCamera
    front_source: SupervisedSource
    back: LoopbackCamera
    bundle: Path
    log: Path
    faults: Sequence[str]
    observers: tuple[AgeObserver, AgeObserver]
    faulty: FaultySink
    run: Run
    stop: threading.Event
    seconds: float
    timing: Timing
    measured: Measurements = field(default_factory=Measurements)
    problem: str = ""
    settled: float = 0.0  # when the camera was up again
    extra: float = 0.0  # seconds of the recovery that a fault has measured itself


def sample(setup: SoakSetup, seconds: float) -> None:
    """Measure ten times a second for `seconds` of the script; a few thousand numbers are kept at most."""
    until, measured = time.monotonic() + seconds / setup.timing.speed, setup.measured
    while not setup.stop.is_set() and (now := time.monotonic()) < until:
        if setup.observers[1].frames:  # from the first result of the camera that never fails
            measured.samples += 1
            for i, observer in enumerate(setup.observers):
                measured.fresh[i] += now - observer.latest < FRESH_SECONDS
        if not measured.memory or now - measured.memory[-1].at > max(setup.timing.memory, setup.seconds / 2000):
            measured.memory.append(MemorySample(now, resident_bytes() / MIB, threading.active_count()))
        time.sleep(max(0.0, min(0.1, until - now)))


class HangingEngine:
    """An engine that stops answering after `after` frames."""

    def __init__(self, engine: Engine, after: int):
        self.slots = engine.slots
        self._engine = engine
        self._remaining = after

    def inputs(self, slot: int) -> Outputs:
        return self._engine.inputs(slot)

    def start(self, slot: int) -> None:
        self._engine.start(slot)

    def wait(self, slot: int) -> Outputs:
        self._remaining -= 1
        if self._remaining < 0:
            threading.Event().wait()
        return self._engine.wait(slot)

    def close(self) -> None:
        self._engine.close()
