"""Soak: the runtime on real loopback cameras through scripted faults, compared with service level objectives.

Two cameras share one engine. `front` goes through every fault in turn; `back` never fails and must not notice.
    absent   nobody listens when the run starts       kill     the camera's process dies, and is restarted
    freeze   connected, but nothing is sent           still    the same image over and over
    corrupt  packets that are no images               resize   another frame size mid-stream
    slow     a sink takes 0.5 s per result            full     a sink's disk is full (/dev/full)
    flap     the camera drops when it is hardly back  gop250   H.264 with a key frame every 10 s
    frozen_h264      H.264 of one picture             folder_removed     the folder of a sink
    model_overwritten, model_truncated                the engine's file on disk; masks must not change
They work on a copy of the bundle. The cameras are processes of their own, so that memory is the runtime's
alone, and images carry the time they were taken, so that the age at the sink is measured from end to end. `sabotage`
verifies that a soak can fail: `leak` keeps every frame, `hang` makes the engine stop answering.
"""

from __future__ import annotations

import itertools
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edgeseg.bundle import Bundle
from edgeseg.errors import unknown
from edgeseg.runtime import open_segmenter
from edgeseg.segmenter import Segmenter
from edgeseg.stream import sinks, sources
from edgeseg.stream.loop import Run
from edgeseg.stream.pipeline import Stream
from edgeseg.stream.progress import OnProgress
from edgeseg.stream.reconnect import ReconnectingSink
from edgeseg.stream.sinks import Sink
from edgeseg.stream.soak.faults import FAULTS, inject
from edgeseg.stream.soak.loopback import LoopbackCamera
from edgeseg.stream.soak.objectives import CAMERAS, RECOVER_SECONDS, SoakReport
from edgeseg.stream.soak.rig import AgeObserver, FaultySink, HangingEngine, SoakSetup, Timing, sample
from edgeseg.stream.summary import RunSummary
from edgeseg.stream.supervise import ReconnectPolicy, SupervisedSource

SABOTAGE = ("leak", "hang")
FRAMES_BEFORE_HANG = 50


def soak(
    bundle: Path,
    minutes: float,
    *,
    seed: int = 0,
    sabotage: str | None = None,
    faults: Sequence[str] = (),
    timing: Timing | None = None,
    on_progress: OnProgress | None = None,
    on_interim: Callable[[SoakReport], None] | None = None,
) -> SoakReport:
    """Run for `minutes` and report; the report is `ok` when every objective was kept.

    `on_interim` gets a report of what was measured so far after every round of all faults. `seed` draws how long each
    fault lasts; `faults`: some of FAULTS, by default all. OptionError for an unknown one and for an unknown `sabotage`.
    """
    for kind in faults:
        if kind not in FAULTS:
            raise unknown("fault", kind, FAULTS)
    if sabotage is not None and sabotage not in SABOTAGE:
        raise unknown("sabotage", sabotage, SABOTAGE)
    with _setup(bundle, minutes * 60, sabotage, faults or FAULTS, timing or Timing()) as setup:
        tell = on_interim or (lambda report: None)
        arguments = (setup, random.Random(seed), lambda: tell(_report(setup, setup.run.summary())))
        script = threading.Thread(target=_script, args=arguments, name="edgeseg-faults", daemon=True)
        script.start()
        summary = setup.run.go(on_progress)
        setup.stop.set()
        script.join(RECOVER_SECONDS)
        return _report(setup, summary)


def _report(setup: SoakSetup, summary: RunSummary) -> SoakReport:
    ages = [age for observer in setup.observers for age in observer.ages.values()]
    return SoakReport.of(summary, setup.measured, ages, [setup.problem] if setup.problem else [])


@contextmanager
def _setup(
    bundle: Path, seconds: float, sabotage: str | None, faults: Sequence[str], timing: Timing
) -> Iterator[SoakSetup]:
    Bundle.load(bundle)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeseg-soak-")))
        bundle = shutil.copytree(bundle, folder / bundle.resolve().name)
        log = folder / "sink" / "log.jsonl"
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
        delay = 0.5 / timing.speed
        reopened = ReconnectingSink(faulty, lambda part: faulty, delay)
        info = sinks.Info(segmenter.spec, live=True, name=CAMERAS[0])
        logging_sink = ReconnectingSink(sinks.open(str(log), info), lambda part: sinks.open(str(log), info), delay)
        outputs: list[list[Sink]] = [[observers[0], reopened, logging_sink], [observers[1]]]
        policy = _policy(timing.speed)
        cameras = [_supervised(camera, name, policy) for camera, name in zip((front, back), CAMERAS)]
        streams = [Stream(*each) for each in zip(cameras, outputs, CAMERAS)]
        run = Run(segmenter, streams, stop=stop, watchdog=timing.watchdog)
        yield SoakSetup(
            front, cameras[0], back, bundle, log, faults, observers, faulty, run, stop, seconds, timing
        )  # fmt: skip


def _policy(speed: float) -> ReconnectPolicy:
    return ReconnectPolicy(
        connect=5, stall=1.5 / speed, frozen=1.5 / speed, first_delay=0.25 / speed, longest_delay=2 / speed,
        steady=1 / speed,
    )  # fmt: skip


def _supervised(camera: LoopbackCamera, name: str, policy: ReconnectPolicy) -> SupervisedSource:
    return SupervisedSource(lambda: sources.open(f"{camera.uri}#timeout=3"), name, policy)


def _script(setup: SoakSetup, rng: random.Random, after_round: Callable[[], None]) -> None:
    """Faults, one after another, until the time is up; then stop the run. Samples are taken all the while."""
    end = time.monotonic() + setup.seconds
    try:
        inject(setup, "absent", setup.timing.absent)
        for kind in itertools.cycle(setup.faults):
            sample(setup, setup.timing.calm)
            if time.monotonic() > end or setup.stop.is_set():
                break
            inject(setup, kind, rng.uniform(*setup.timing.fault))
            if kind == setup.faults[-1]:
                after_round()
        sample(setup, setup.timing.calm)
    except Exception as error:
        setup.problem = f"the script of faults failed: {type(error).__name__}: {error}"
    finally:
        setup.stop.set()
