"""SupervisedSource: a camera that is reconnected until it is closed. For sinks see reconnect.py.

    CONNECTING --first frame---------------------> STREAMING
    CONNECTING --error---------------------------> BROKEN
    CONNECTING --no frame for `connect` s--------> STALLED
    CONNECTING --data, but no key frame yet------> WAITING
    STREAMING  --the same, for `stall` s---------> WAITING
    WAITING    --frame---------------------------> STREAMING
    WAITING    --error---------------------------> BROKEN
    STREAMING  --no frame for `stall` s----------> STALLED
    STREAMING  --the same bytes for `frozen` s---> STALLED
    STREAMING  --error, or end of stream---------> BROKEN
    STALLED, BROKEN -----------------------------> BACKING_OFF
    BACKING_OFF --delay over---------------------> CONNECTING
    any --close()--------------------------------> STOPPED

A camera that was streaming a moment ago is connected again after `first_delay`; one that is gone, after an eighth of
the time that it has been gone, `longest_delay` at most, so that the wait adds little to the outage. `steady` seconds of
streaming end an absence: a single frame does not. Half of each delay is drawn at random, so that many devices do not
knock on a rebooted camera in step. A camera that refuses the credentials is left alone for `longest_delay`: many lock
the account after a few attempts. Each connection lives in a thread of its own: one that is stuck in a driver is left
behind, and counted. Wrong options and missing packages are never retried; refused credentials are retried only if they
were accepted before.
"""

from __future__ import annotations

import math
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from edgeseg.errors import EdgesegError, MissingPackage, OptionError, StreamError
from edgeseg.result import Frame
from edgeseg.stream.channel import Channel
from edgeseg.stream.clock import SYSTEM_CLOCK, Clock
from edgeseg.stream.freeze import FreezeDetector
from edgeseg.stream.redact import redact
from edgeseg.stream.sources import EndOfStream, Refused, Source

STATES = ("CONNECTING", "WAITING", "STREAMING", "STALLED", "BROKEN", "BACKING_OFF", "STOPPED")
MAX_STUCK = 8
POLL_SECONDS = 0.2
CLOSE_SECONDS = 0.4
SHARE_OF_ABSENCE = 0.125


@dataclass(frozen=True)
class ReconnectPolicy:
    """Seconds. `frozen` 0 switches the check for identical frames off."""

    connect: float = 15.0
    stall: float = 5.0
    frozen: float = 60.0
    first_delay: float = 0.5
    longest_delay: float = 30.0
    steady: float = 1.0

    def delay(self, absent: float, jitter: float) -> float:
        """Before connecting again to a camera that was `absent` for so long; `jitter`, 0 to 1, scales half of it."""
        full = min(max(absent * SHARE_OF_ABSENCE, self.first_delay), self.longest_delay)
        return full * (0.5 + 0.5 * jitter)


@dataclass(frozen=True)
class Transition:
    """A camera's new state, one of STATES, and the reason where there is one."""

    state: str
    reason: str = ""


class SupervisedSource(Source):
    """Frames of whatever `connect` opens, numbered through over all connections."""

    live = True

    def __init__(
        self,
        connect: Callable[[], Source],
        name: str,
        policy: ReconnectPolicy | None = None,
        on_change: Callable[[Transition], None] | None = None,
        seed: int | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ):
        super().__init__()
        self.name = name
        self.state = "CONNECTING"
        self.visits: Counter[str] = Counter()
        self._connect = connect
        self._policy = policy or ReconnectPolicy()
        self._on_change = on_change
        self._clock = clock
        self._random = random.Random(seed)
        self._index = 0
        self._retry_at = 0.0
        self._streaming_since = 0.0
        self._well_at = clock.monotonic()  # the latest frame of steady streaming
        self._connection: Connection | None = None
        self._stuck: list[Connection] = []
        self._freeze = FreezeDetector()
        self._motion = False
        self._reasons: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._left_dropped = self._left_damaged = 0  # by the connections before this one

    @property
    def dropped(self) -> int:  # type: ignore[override]
        with self._counting:
            return self._left_dropped + (self._connection.dropped if self._connection else 0)

    @property
    def damaged(self) -> int:  # type: ignore[override]
        with self._counting:
            return self._left_damaged + (self._connection.damaged if self._connection else 0)

    def read(self, timeout: float) -> Frame | None:
        """The newest frame. Raises only what reconnecting cannot fix."""
        if self.state == "STOPPED":
            raise EndOfStream
        if self.state == "BACKING_OFF" and not self._back_off(timeout):
            return None
        if self._connection is None:
            self._start_connection()
        try:
            frame = self._connection.frames.get(timeout) if self._connection else None
        except (EdgesegError, EndOfStream) as error:
            self._break(error)
            return None
        if frame is not None:
            return self._accept(frame)
        self._check_silence()
        return None

    def use_motion(self) -> None:
        self._motion = True

    def close(self) -> None:
        if self.state == "STOPPED":
            return
        last = self._connection
        self._leave_connection()
        self._enter("STOPPED")
        if last:
            last.join(CLOSE_SECONDS)
        stuck = [c for c in self._stuck if c.alive and c is not last]
        if self.reconnects or self._reasons:
            self.warnings.append(f"{self.name}: reconnected {self.reconnects} times ({self._describe_reasons()}).")
        if stuck:
            self.warnings.append(f"{self.name}: {len(stuck)} connections never came back from the driver.")

    def _describe_reasons(self) -> str:
        return "; ".join(f"{n}x {reason}" for reason, n in self._reasons.most_common(5)) or "no failures"

    def _start_connection(self) -> None:
        self._stuck = [c for c in self._stuck if c.alive]
        if len(self._stuck) >= MAX_STUCK:
            raise StreamError(f"{self.name}: {MAX_STUCK} connections are stuck in the driver.", "Restart the program.")
        self._enter("CONNECTING")
        self._connection = Connection(self._connect, self._clock, self._motion)
        self._freeze = FreezeDetector()

    def _accept(self, frame: Frame) -> Frame | None:
        now = self._clock.monotonic()
        source = self._connection.source if self._connection else None
        if self._connection and not self._connection.delivered:
            self.reconnects += self._index > 0
            self._connection.delivered = True
        if self.state != "STREAMING":
            self._enter("STREAMING")
            self._streaming_since = now
        if now - self._streaming_since >= self._policy.steady:
            self._well_at = now
        polled = source is not None and source.interval > 0  # a snapshot may be the same for long
        if self._policy.frozen and not polled and self._freeze.seconds(frame.image, now) > self._policy.frozen:
            self._fail("STALLED", f"the same image for {self._policy.frozen:g} s")
            return None
        self._index += 1
        self.fps = source.fps if source else None
        return replace(frame, index=self._index - 1)

    def _check_silence(self) -> None:
        if self._connection is None:
            return
        source = self._connection.source
        limit = self._policy.stall if self.state == "STREAMING" else self._policy.connect
        limit += source.interval if source else 0.0
        silent = self._clock.monotonic() - self._connection.latest > limit
        if source and source.waiting:  # reconnecting would only cost the key frame
            if silent or self.state != "STREAMING":
                self._enter("WAITING", "for a key frame")
        elif silent:
            self._fail("STALLED", f"no frame for {limit:g} s")

    def _break(self, error: Exception) -> None:
        if isinstance(error, (OptionError, MissingPackage)) or (isinstance(error, Refused) and self._index == 0):
            raise error
        reason = error.what if isinstance(error, EdgesegError) else "the stream ended"
        self._fail("BROKEN", reason, refused=isinstance(error, Refused))

    def _fail(self, state: str, reason: str, refused: bool = False) -> None:
        self._enter(state, reason)
        self._reasons[reason] += 1
        self._leave_connection()
        now = self._clock.monotonic()
        delay = self._policy.delay(math.inf if refused else now - self._well_at, self._random.random())
        self._retry_at = now + delay
        self._enter("BACKING_OFF", f"{delay:.1f} s")

    def _leave_connection(self) -> None:
        left = self._connection
        if left is None:
            return
        with self._counting:
            self._connection = None
            self._left_dropped += left.dropped + len(left.frames)
            self._left_damaged += left.damaged
        left.leave()
        self._stuck.append(left)

    def _back_off(self, timeout: float) -> bool:
        remaining = self._retry_at - self._clock.monotonic()
        if remaining > 0:
            self._clock.sleep(min(remaining, max(timeout, 0.0)))
        return remaining <= timeout

    def _enter(self, state: str, reason: str = "") -> None:
        if state != self.state or not self.visits:
            self.state = state
            self.visits[state] += 1
            if self._on_change:
                self._on_change(Transition(state, reason))


class Connection:
    """One attempt: a thread that opens the source, reads it into a newest-frame slot and closes it."""

    def __init__(self, connect: Callable[[], Source], clock: Clock, motion: bool = False):
        self.frames: Channel[Frame] = Channel(1, drop=True, pass_on=lambda dropped, frame: frame.after(dropped))
        self._motion = motion
        self.source: Source | None = None
        self.latest = clock.monotonic()  # when the latest frame came
        self.delivered = False  # whether the first frame was taken
        self._clock = clock
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(connect,), name="edgeseg-camera", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        return self.frames.dropped + (self.source.dropped if self.source else 0)

    @property
    def damaged(self) -> int:
        return self.source.damaged if self.source else 0

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout: float) -> None:
        self._thread.join(timeout)

    def leave(self) -> None:
        """Let it end by itself: closing a source under a running read is not safe."""
        self._left.set()
        self.frames.abandon()

    def _work(self, connect: Callable[[], Source]) -> None:
        try:
            with connect() as self.source:
                if self._motion:
                    self.source.use_motion()
                while not self._left.is_set():
                    frame = self.source.read(POLL_SECONDS)
                    if frame is not None:
                        self.latest = self._clock.monotonic()
                        self.frames.put(frame)
        except Exception as error:
            known = isinstance(error, (EdgesegError, EndOfStream))
            self.frames.finish(error if known else StreamError(f"{type(error).__name__}: {redact(str(error))}"))
