"""Soak: the runtime on real loopback cameras through scripted faults, judged against a service level objective.

Two cameras share one engine. `front` goes through every fault in turn; `back` never fails and must not notice.
    absent   nobody listens when the run starts       kill     the camera's process dies, and is restarted
    freeze   connected, but nothing is sent           still    the same picture over and over
    corrupt  packets that are no pictures             resize   another frame size mid-stream
    slow     a sink takes 0.5 s per result            full     a sink's disk is full (/dev/full)
The cameras are processes of their own, so that memory is the runtime's alone, and pictures carry the time they were
taken, so that the age at the sink is true from end to end. `sabotage` proves that the soak can fail: `leak` keeps every
frame, `hang` makes the engine stop answering.
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
from typing import Any

from edgeseg.errors import EdgesegError, StreamError, unknown
from edgeseg.images import Image
from edgeseg.runtime import open_segmenter
from edgeseg.segmenter import Result, Segmenter
from edgeseg.stream import sources
from edgeseg.stream.loop import OnProgress, Run
from edgeseg.stream.metrics import resident_bytes
from edgeseg.stream.pipeline import Stream
from edgeseg.stream.reconnect import Healing
from edgeseg.stream.sinks import Sink
from edgeseg.stream.soak.loopback import LoopbackCamera, read_stamp
from edgeseg.stream.soak.objectives import RECOVER_SECONDS, Record, breaches, report_of
from edgeseg.stream.summary import Latest
from edgeseg.stream.supervise import Policy, Supervised

FAULTS = ("kill", "freeze", "still", "corrupt", "resize", "slow", "full")
SABOTAGE = ("leak", "hang")
POLICY = Policy(connect=5, stall=1.5, frozen=1.5, first_delay=0.25, longest_delay=2, steady=5)
FRESH = 1.0
FAULT_SECONDS = (2.5, 4.5)
CALM_SECONDS = 4.0
MIB = 2.0**20


class Observer(Sink):
    """Knows when the latest result came and how old its picture was. `hoard`, if it is a list, is a leak."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = 0
        self.latest = 0.0
        self.stamped = 0.0
        self.ages = Latest()
        self.hoard: list[Image] | None = None

    def write(self, result: Result, picture: Image | None) -> None:
        now = time.monotonic()
        stamped = read_stamp(result.frame.image) / 1e3
        if stamped != self.stamped:  # a camera that repeats an old picture is `still`; that is no delay of ours
            self.ages.add(now - stamped)
        self.stamped = stamped
        self.frames += 1
        self.latest = now
        if self.hoard is not None:
            self.hoard.append(result.frame.image.copy())


class Troubled(Sink):
    """Writes a line per result to a device; `slow` makes it wait, `full` turns the device into one without space."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = threading.Event()
        self.full = threading.Event()

    def write(self, result: Result, picture: Image | None) -> None:
        if self.slow.is_set():
            time.sleep(0.5)
        try:
            Path("/dev/full" if self.full.is_set() else "/dev/null").write_text(f"{result.frame.index}\n")
        except OSError as error:
            raise StreamError(f"Cannot write: {error.strerror}.") from error


@dataclass
class Rig:
    """Everything the script acts on and the judge looks at."""

    front: LoopbackCamera
    back: LoopbackCamera
    observers: tuple[Observer, Observer]
    troubled: Troubled
    run: Run
    stop: threading.Event
    seconds: float
    record: Record = field(default_factory=Record)
    broken: str = ""


def soak(
    bundle: Path, minutes: float, *, seed: int = 0, sabotage: str | None = None, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Run for `minutes` and report; `report["breaches"]` is empty when every objective was kept."""
    if sabotage is not None and sabotage not in SABOTAGE:
        raise unknown("sabotage", sabotage, SABOTAGE)
    with _rig(bundle, minutes * 60, sabotage) as rig:
        script = threading.Thread(target=_script, args=(rig, random.Random(seed)), name="edgeseg-faults", daemon=True)
        script.start()
        summary = rig.run.go(on_progress)
        rig.stop.set()
        script.join(RECOVER_SECONDS)
        report = report_of(
            summary.to_dict(), rig.record, [age for observer in rig.observers for age in observer.ages.values()]
        )
        report["breaches"] = [*([rig.broken] if rig.broken else []), *breaches(report)]
        report["ok"] = not report["breaches"]
        return report


@contextmanager
def _rig(bundle: Path, seconds: float, sabotage: str | None) -> Iterator[Rig]:
    with ExitStack() as stack:
        front, back = (stack.enter_context(LoopbackCamera()) for _ in range(2))
        front.kill()  # its port is known now; that nobody listens there yet is the first fault
        segmenter = open_segmenter(bundle, "latency")
        observers, troubled, stop = (Observer(), Observer()), Troubled(), threading.Event()
        if sabotage == "leak":
            observers[0].hoard = []
        if sabotage == "hang":
            segmenter = Segmenter(segmenter.spec, Hanging(segmenter.engine, 100), segmenter.head)
        else:
            stack.callback(segmenter.close)
        healing = Healing(troubled, lambda part: troubled, first_delay=0.5)
        streams = [
            Stream(_supervised(front, "front"), [observers[0], healing], "front"),
            Stream(_supervised(back, "back"), [observers[1]], "back"),
        ]
        run = Run(segmenter, streams, stop=stop, watchdog=5.0)
        yield Rig(front, back, observers, troubled, run, stop, seconds)


def _supervised(camera: LoopbackCamera, name: str) -> Supervised:
    return Supervised(lambda: sources.open(f"{camera.uri}#timeout=3"), name, POLICY)


def _script(rig: Rig, luck: random.Random) -> None:
    """Faults, one after another, until the time is up; then stop the run. Samples are taken all the while."""
    end = time.monotonic() + rig.seconds
    try:
        _fault(rig, "absent", 3.0)
        for kind in itertools.cycle(FAULTS):
            _sample(rig, CALM_SECONDS)
            if time.monotonic() > end or rig.stop.is_set():
                break
            _fault(rig, kind, luck.uniform(*FAULT_SECONDS))
        _sample(rig, CALM_SECONDS)
    except (EdgesegError, OSError) as error:
        rig.broken = f"the script of faults failed: {error}"
    finally:
        rig.stop.set()


def _fault(rig: Rig, kind: str, seconds: float) -> None:
    """Begin, wait, end, and measure how long it takes until a picture comes that was taken after the end."""
    modes = ("freeze", "still", "corrupt", "resize")
    events = {"slow": rig.troubled.slow, "full": rig.troubled.full}
    if kind == "kill":
        rig.front.kill()
    elif kind in modes:
        rig.front.say(kind)
    elif kind in events:
        events[kind].set()
    _sample(rig, seconds)
    if kind in ("kill", "absent"):
        rig.front.start()
    elif kind in modes:
        rig.front.say("normal")
    else:
        events[kind].clear()
    ended = time.monotonic()
    while rig.observers[0].stamped < ended and time.monotonic() < ended + RECOVER_SECONDS and not rig.stop.is_set():
        _sample(rig, 0.05)
    back = time.monotonic() - ended if rig.observers[0].stamped >= ended else None
    if back is not None or not rig.stop.is_set():
        rig.record.faults.setdefault(kind, []).append(back)


def _sample(rig: Rig, seconds: float) -> None:
    """Look at the rig ten times a second for `seconds`; keep at most a few thousand numbers, however long it runs."""
    until = time.monotonic() + seconds
    while not rig.stop.is_set() and (now := time.monotonic()) < until:
        if rig.observers[1].frames:  # from the first result of the camera that never fails
            rig.record.looks += 1
            for i, observer in enumerate(rig.observers):
                rig.record.fresh[i] += now - observer.latest < FRESH
        if not rig.record.memory or now - rig.record.memory[-1][0] > max(0.5, rig.seconds / 2000):
            rig.record.memory.append((now, resident_bytes() / MIB, threading.active_count()))
        time.sleep(max(0.0, min(0.1, until - now)))


class Hanging:
    """An engine that stops answering after `after` frames."""

    def __init__(self, engine: Any, after: int):
        self.slots = engine.slots
        self._engine = engine
        self._left = after

    def inputs(self, slot: int) -> Any:
        return self._engine.inputs(slot)

    def start(self, slot: int) -> None:
        self._engine.start(slot)

    def wait(self, slot: int) -> Any:
        self._left -= 1
        if self._left < 0:
            threading.Event().wait()
        return self._engine.wait(slot)

    def close(self) -> None:
        self._engine.close()
