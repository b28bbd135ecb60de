"""Watching one stream for drift, and collecting reference statistics from one: what `edgeseg drift` does."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgeseg.bundle import Bundle
from edgeseg.images import Image
from edgeseg.monitoring.monitor import EVERY, MARGIN_EVERY, DriftMonitor
from edgeseg.monitoring.reference import collect_reference
from edgeseg.result import Frame, Result
from edgeseg.results.common import Picture
from edgeseg.results.drift import Alarm, DriftResult, ReferenceStatistics
from edgeseg.runtime import open_segmenter
from edgeseg.segmenter import Segmenter
from edgeseg.stream import loop, sources
from edgeseg.stream.assemble import open_source
from edgeseg.stream.progress import OnProgress
from edgeseg.stream.sinks import Sink
from edgeseg.stream.sources import EndOfStream, Source
from edgeseg.stream.sources.folder import Folder

log = logging.getLogger(__name__)
READ_SECONDS = 1.0


class Watcher(Sink):
    """A sink that watches, and keeps what it found and what that cost."""

    def __init__(self, monitor: DriftMonitor):
        super().__init__()
        self.monitor = monitor
        self.alarms: list[Alarm] = []
        self.frames = 0
        self._model = [0.0, 0.0]  # seconds of frames without and with a margin
        self._count = [0, 0]

    def write(self, result: Result, image: Image | None) -> None:
        self.frames += 1
        measured = result.margin is not None
        self._model[measured] += sum(result.times.values())
        self._count[measured] += 1
        alarms = self.monitor.observe(result)
        for alarm in alarms:
            log.warning("frame %d: %s", alarm.frame, alarm.what)
        self.alarms += alarms

    def cost(self) -> tuple[float, float] | None:
        """(seconds per frame that watching took, that the model took without it); None after too few frames."""
        if not all(self._count):
            return None
        plain, measured = (total / count for total, count in zip(self._model, self._count))
        return self.monitor.seconds / self.frames + max(0.0, measured - plain) / MARGIN_EVERY, plain


def watch(
    bundle: Bundle,
    uri: str,
    reference: ReferenceStatistics,
    *,
    days: float,
    patience: int,
    pictures: Path | None = None,
    max_frames: int | None = None,
    stop: threading.Event | None = None,
    on_progress: OnProgress | None = None,
) -> DriftResult:
    """Watch the source at `uri` to its end, or until `stop`; cameras are connected again. Raises what broke it."""
    source = open_source(uri)
    golden = next((frame for frame, _ in bundle.golden()), None)
    monitor = DriftMonitor(
        reference, fps=source.fps, days=days, patience=patience, pictures=pictures, then=golden
    )  # fmt: skip
    watcher = Watcher(monitor)
    with open_segmenter(bundle, "latency" if source.live else "throughput", MARGIN_EVERY) as segmenter:
        summary = loop.run(
            segmenter, source, [watcher], on_progress, max_frames=max_frames, overlay=False, stop=stop
        )  # fmt: skip
    if summary.error:
        raise summary.error
    if monitor.failed:
        log.warning("%s", monitor.failed.what)
    cost = watcher.cost()
    drawn = [alarm for alarm in watcher.alarms if alarm.picture]
    return DriftResult(
        frames=watcher.frames,
        fps=source.fps,
        alarms=tuple(watcher.alarms),
        scores=monitor.state().scores,
        bound=monitor.bound,
        block=monitor.block,
        reference=reference.frames,
        cost_ms=round(1e3 * cost[0], 4) if cost else None,
        frame_ms=round(1e3 * cost[1], 4) if cost else None,
        pictures=tuple(Picture(alarm.what, str(pictures / alarm.picture)) for alarm in drawn if pictures),
        bundle=bundle.identity,
    )


def reference_from(
    segmenter: Segmenter, uri: str, sequence: bool | None = None, picture: bool = True
) -> ReferenceStatistics:
    """Reference statistics of a source that ends. `sequence`: whether its frames follow each other, by default if it
    is no folder; of such only every EVERY-th counts. `segmenter`: opened with margin=True."""
    with sources.open(uri) as source:
        follow = not isinstance(source, Folder) if sequence is None else sequence
        frames = itertools.islice(_frames(source), 0, None, EVERY if follow else 1)
        results = map(segmenter, (np.asarray(frame.image) for frame in frames))
        return collect_reference(results, segmenter.spec.classes, follow, picture)


def _frames(source: Source) -> Iterator[Frame]:
    while True:
        try:
            frame = source.read(READ_SECONDS)
        except EndOfStream:
            return
        if frame is not None:
            yield frame
