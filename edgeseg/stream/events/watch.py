"""Watch: the rules of one stream, evaluated on every result of it."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeseg.errors import StreamError
from edgeseg.result import Frame, Result
from edgeseg.spec import Spec
from edgeseg.stream.events.rules import Rule, Rules
from edgeseg.stream.events.state import ObservedTime, RuleState
from edgeseg.stream.events.zones import WHOLE, ZonePixels, rasterize

log = logging.getLogger(__name__)
DEFAULT_FPS = 25.0
MOST_WAITING = 1000  # events that no sink has taken yet
MOST_SIZES = 16  # of frames: a stream may change its own all the time
STARTED = "%Y%m%dT%H%M%SZ"
NO_IMAGE = np.zeros((0, 0, 3), np.uint8)
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Event:
    """A rule that began to hold (`event` "start") or ended ("end").

    Both have the same `id`. `time`: Unix seconds of the frame that decided it, `began` of the first frame that met the
    condition; `pts`, `frame`: of the frame that decided it; `share` of the zone, 0 to 1, then, and `peak`, its extreme
    so far. `seconds`: how long the condition has held, jumps of the clock left out. `reason` of an end: "cleared", or
    "stopped" with the run. `undecided`: a person has to look at the frame that decided it, for these `reasons`.
    """

    event: str
    id: str
    rule: str
    zone: str
    when: str
    stream: str
    time: float
    began: float
    pts: float | None
    frame: int
    share: float
    peak: float
    seconds: float
    reason: str = ""
    undecided: bool = False
    reasons: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        rounded = {"time": round(self.time, 3), "began": round(self.began, 3), "seconds": round(self.seconds, 3)}
        shares = {"share": round(self.share, 4), "peak": round(self.peak, 4)}
        return {"kind": "event", "schema": 1, **asdict(self), **rounded, **shares, "reasons": list(self.reasons)}


@dataclass(frozen=True)
class Observation:
    """What the rules say of a result. `seconds`: watched so far; `shares`: per zone [classes], 0 to 1; `active`: per
    rule; `events`: what has changed with this result."""

    seconds: float
    shares: Mapping[str, Shares]
    active: Mapping[str, bool]
    events: tuple[Event, ...] = ()


class Watch:
    """Call update() with every result of a stream, in order. `live`: its time is that of capture, else the media's."""

    def __init__(self, rules: Rules, spec: Spec, stream: str = "", live: bool = False, fps: float | None = None):
        self.rules = rules
        self.spec = spec
        self._stream = stream
        self._live = live
        self._fps = fps or DEFAULT_FPS
        self._time = ObservedTime()
        self._states = [RuleState(rule) for rule in rules.rules]
        used = {rule.when.zone for rule in rules.rules}
        self._zones = [z for z in rules.zones.values() if z.name in used or z.name != WHOLE or not used]
        self._ids = {r.name: [spec.classes.index(name) for name in r.when.classes] for r in rules.rules}
        self._pixels: dict[tuple[int, ...], dict[str, ZonePixels]] = {}
        self._open: dict[str, tuple[Event, float]] = {}  # by rule, with the observed time when its condition began
        self._count = 0
        self._frame: Frame | None = None  # the latest, without its image
        self._reasons: tuple[str, ...] = ()  # why it is undecided

    def update(self, result: Result) -> Observation:
        """StreamError where the network sees nothing of a zone, at the first frame."""
        steady = self._time.advance(self._time_of(result.frame))
        now = self._time.seconds
        zones = self._zones_of(result)
        self._frame = replace(result.frame, image=NO_IMAGE)
        self._reasons = result.decision.reasons if result.decision else ()
        counts = {name: pixels.histogram(result.classmap)[: len(self.spec.classes)] for name, pixels in zones.items()}
        events = []
        for state in self._states:
            rule = state.rule
            if not steady or rule.when.zone not in zones:
                state.restart()
            if rule.when.zone in zones:
                share = float(counts[rule.when.zone][self._ids[rule.name]].sum()) / zones[rule.when.zone].count
                if state.update(share, now):
                    events.append(self._event(state, result.frame))
        shares = {name: counted / zones[name].count for name, counted in counts.items()}
        return Observation(now, shares, {s.rule.name: s.active for s in self._states}, tuple(events))

    def _time_of(self, frame: Frame) -> float:
        if self._live:
            return frame.captured
        return frame.index / self._fps if frame.pts is None else frame.pts

    def _zones_of(self, result: Result) -> dict[str, ZonePixels]:
        key = (*result.classmap.shape, *result.frame.image.shape[:2])
        if key not in self._pixels:
            if len(self._pixels) >= MOST_SIZES:
                self._pixels.clear()
            self._pixels[key] = self._rasterize(result)
        return self._pixels[key]

    def _rasterize(self, result: Result) -> dict[str, ZonePixels]:
        height, width = result.frame.image.shape[:2]
        spec = result.spec or self.spec  # a fallback has a size of its own
        if mismatch := self.rules.mismatch(height, width):
            log.warning("%s They are stretched to it.", mismatch)
        found = {zone.name: rasterize(zone, spec, height, width) for zone in self._zones}
        for name, pixels in found.items():
            if pixels.count:
                continue
            what = f"{self.rules.path}: the network sees nothing of zones.{name} in frames of {width}x{height}."
            hint = f"Its input is {spec.width}x{spec.height}, fit {spec.fit!r}: is the zone too small, or cut off?"
            if self._frame is None:
                raise StreamError(what, hint)
            log.warning("%s Its rules wait.", what, extra={"hint": hint})
        return {name: pixels for name, pixels in found.items() if pixels.count}

    def _event(self, state: RuleState, frame: Frame) -> Event:
        rule, now = state.rule, time.time() - max(time.monotonic() - frame.captured, 0.0)
        if not state.active:
            started, since = self._open.pop(rule.name)
            return self._end(started, state, frame, now, state.since - since, "cleared")
        held = self._time.seconds - state.since
        name = self._name(rule, now - held)
        event = Event("start", name, rule.name, rule.when.zone, rule.text, self._stream, now, now - held,
                      _media_time(frame), frame.index, state.share, state.peak, held, undecided=bool(self._reasons),
                      reasons=self._reasons)  # fmt: skip
        self._open[rule.name] = event, state.since
        return event

    def stop(self) -> tuple[Event, ...]:
        """The run ends: an end for every event that is open."""
        opened, self._open = self._open, {}
        frame, now = self._frame, time.time()
        states = [state for state in self._states if state.rule.name in opened]
        return tuple(
            self._end(event, state, frame, now, self._time.seconds - since, "stopped")
            for state in states
            for event, since in (opened[state.rule.name],)
            if frame is not None
        )

    def _end(self, started: Event, state: RuleState, frame: Frame, now: float, held: float, reason: str) -> Event:
        return replace(started, event="end", time=now, pts=_media_time(frame), frame=frame.index, share=state.share,
                       peak=state.peak, seconds=held, reason=reason, undecided=bool(self._reasons),
                       reasons=self._reasons)  # fmt: skip

    def _name(self, rule: Rule, began: float) -> str:
        """Of an event, in order of time, and fit to name files."""
        self._count += 1
        parts = (f"{datetime.fromtimestamp(began, timezone.utc):{STARTED}}", self._stream, rule.name)
        return re.sub(r"[^\w-]", "_", "-".join([*filter(None, parts), f"{self._count:04d}"]))


def _media_time(frame: Frame) -> float | None:
    return None if frame.pts is None else round(frame.pts, 6)
