"""Soak: the runtime on real loopback cameras through scripted faults, compared with service level objectives.

Two cameras share one engine. `front` goes through every fault in turn; `back` never fails and must not notice.
    absent   nobody listens when the run starts       kill     the camera's process dies, and is restarted
    freeze   connected, but nothing is sent           still    the same image over and over
    corrupt  packets that are no images               resize   another frame size mid-stream
    slow     a sink takes 0.5 s per result            full     a sink's disk is full (/dev/full)
The cameras are processes of their own, so that memory is the runtime's alone, and images carry the time they were
taken, so that the age at the sink is measured from end to end. `sabotage` verifies that a soak can fail: `leak` keeps
every frame, `hang` makes the engine stop answering.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edgeseg.errors import EdgesegError, StreamError, unknown
from edgeseg.heads import Outputs
from edgeseg.images import Image
from edgeseg.runtime import open_segmenter
from edgeseg.segmenter import Engine, Result, Segmenter
from edgeseg.stream import sources
from edgeseg.stream.loop import Run
from edgeseg.stream.metrics_server import resident_bytes
from edgeseg.stream.pipeline import Stream
from edgeseg.stream.progress import OnProgress
from edgeseg.stream.reconnect import ReconnectingSink
from edgeseg.stream.sinks import Sink
from edgeseg.stream.soak.loopback import LoopbackCamera, read_stamp
from edgeseg.stream.soak.objectives import CAMERAS, RECOVER_SECONDS, Measurements, MemorySample, SoakReport
from edgeseg.stream.supervise import ReconnectPolicy, SupervisedSource
from edgeseg.stream.timings import LatestValues

FAULTS = ("kill", "freeze", "still", "corrupt", "resize", "slow", "full")
SABOTAGE = ("leak", "hang")
POLICY = ReconnectPolicy(connect=5, stall=1.5, frozen=1.5, first_delay=0.25, longest_delay=2)
FRESH_SECONDS = 1.0
FRAMES_BEFORE_HANG = 50
MIB = 2.0**20


@dataclass(frozen=True)
class Timing:
    """Seconds: how long the first fault (`absent`) and the others (from, to) last, the `calm` between them, between two
    `memory` samples, and the `watchdog` of the engine.
    """

    absent: float = 3.0
    fault: tuple[float, float] = (2.5, 4.5)
    calm: float = 4.0
    memory: float = 0.5
    watchdog: float = 5.0


class AgeObserver(Sink):
    """Records when the latest result came and how old its image was. `leaked`, if it is a list, keeps every frame."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = 0
        self.latest = 0.0
        self.stamped = 0.0
        self.ages = LatestValues()
        self.leaked: list[Image] | None = None

    def write(self, result: Result, image: Image | None) -> None:
        now = time.monotonic()
        stamped = read_stamp(result.frame.image) / 1e3
        if stamped != self.stamped:  # a camera that repeats an old image is `still`; that is not our delay
            self.ages.add(now - stamped)
        self.stamped = stamped
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
    back: LoopbackCamera
    observers: tuple[AgeObserver, AgeObserver]
    faulty: FaultySink
    run: Run
    stop: threading.Event
    seconds: float
    timing: Timing
    measured: Measurements = field(default_factory=Measurements)
    problem: str = ""


def soak(
    bundle: Path,
    minutes: float,
    *,
    seed: int = 0,
    sabotage: str | None = None,
    timing: Timing | None = None,
    on_progress: OnProgress | None = None,
) -> SoakReport:
    """Run for `minutes` and report; the report is `ok` when every objective was kept.

    `seed` draws how long each fault lasts. OptionError for an unknown `sabotage`.
    """
    if sabotage is not None and sabotage not in SABOTAGE:
        raise unknown("sabotage", sabotage, SABOTAGE)
    with _setup(bundle, minutes * 60, sabotage, timing or Timing()) as setup:
        script = threading.Thread(target=_script, args=(setup, random.Random(seed)), name="edgeseg-faults", daemon=True)
        script.start()
        summary = setup.run.go(on_progress)
        setup.stop.set()
        script.join(RECOVER_SECONDS)
        ages = [age for observer in setup.observers for age in observer.ages.values()]
        return SoakReport.of(summary, setup.measured, ages, [setup.problem] if setup.problem else [])


@contextmanager
def _setup(bundle: Path, seconds: float, sabotage: str | None, timing: Timing) -> Iterator[SoakSetup]:
    with ExitStack() as stack:
        front, back = (stack.enter_context(LoopbackCamera()) for _ in range(2))
        front.kill()  # its port is known now; that nobody listens there yet is the first fault
        segmenter = open_segmenter(bundle, "latency")
        observers, faulty, stop = (AgeObserver(), AgeObserver()), FaultySink(), threading.Event()
        if sabotage == "leak":
            observers[0].leaked = []
        if sabotage == "hang":
            segmenter = Segmenter(segmenter.spec, HangingEngine(segmenter.engine, FRAMES_BEFORE_HANG), segmenter.head)
        else:
            stack.callback(segmenter.close)
        reopened = ReconnectingSink(faulty, lambda part: faulty, first_delay=0.5)
        sinks: list[list[Sink]] = [[observers[0], reopened], [observers[1]]]
        streams = [
            Stream(_supervised(camera, name), outputs, name)
            for camera, name, outputs in zip((front, back), CAMERAS, sinks)
        ]
        run = Run(segmenter, streams, stop=stop, watchdog=timing.watchdog)
        yield SoakSetup(front, back, observers, faulty, run, stop, seconds, timing)


def _supervised(camera: LoopbackCamera, name: str) -> SupervisedSource:
    return SupervisedSource(lambda: sources.open(f"{camera.uri}#timeout=3"), name, POLICY)


def _script(setup: SoakSetup, rng: random.Random) -> None:
    """Faults, one after another, until the time is up; then stop the run. Samples are taken all the while."""
    end = time.monotonic() + setup.seconds
    try:
        _fault(setup, "absent", setup.timing.absent)
        for kind in itertools.cycle(FAULTS):
            _sample(setup, setup.timing.calm)
            if time.monotonic() > end or setup.stop.is_set():
                break
            _fault(setup, kind, rng.uniform(*setup.timing.fault))
        _sample(setup, setup.timing.calm)
    except (EdgesegError, OSError) as error:
        setup.problem = f"the script of faults failed: {error}"
    finally:
        setup.stop.set()


def _fault(setup: SoakSetup, kind: str, seconds: float) -> None:
    """Begin, wait, end, and measure how long it takes until an image comes that was taken after the end."""
    modes = ("freeze", "still", "corrupt", "resize")
    events = {"slow": setup.faulty.slow, "full": setup.faulty.full}
    if kind == "kill":
        setup.front.kill()
    elif kind in modes:
        setup.front.set_mode(kind)
    elif kind in events:
        events[kind].set()
    _sample(setup, seconds)
    if kind in ("kill", "absent"):
        setup.front.start()
    elif kind in modes:
        setup.front.set_mode("normal")
    else:
        events[kind].clear()
    ended = time.monotonic()
    while setup.observers[0].stamped < ended and time.monotonic() < ended + RECOVER_SECONDS and not setup.stop.is_set():
        _sample(setup, 0.05)
    recovered = time.monotonic() - ended if setup.observers[0].stamped >= ended else None
    if recovered is not None or not setup.stop.is_set():
        setup.measured.faults.setdefault(kind, []).append(recovered)


def _sample(setup: SoakSetup, seconds: float) -> None:
    """Measure ten times a second for `seconds`; keep at most a few thousand numbers, however long it runs."""
    until, measured = time.monotonic() + seconds, setup.measured
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
