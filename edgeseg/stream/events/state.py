"""RuleState: whether a rule holds, with hysteresis over time; and the time it goes by."""

from __future__ import annotations

import statistics
from collections import deque

from edgeseg.stream.events.rules import Rule

LONGEST_STEP = 5.0
STEPS = 9
SLOWEST = 4.0  # times the usual step


class ObservedTime:
    """Seconds of a stream that were watched: frames may come late, seek or jump in time, but then nothing was seen.

    A step between two frames that is negative, or longer than LONGEST_STEP and than SLOWEST times what is usual, is a
    jump: it adds no time.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.jumps = 0
        self._latest: float | None = None
        self._steps: deque[float] = deque(maxlen=STEPS)

    def advance(self, at: float) -> bool:
        """Go on to a frame's time; False for a jump."""
        step = 0.0 if self._latest is None else at - self._latest
        self._latest = at
        usual = statistics.median(self._steps) if self._steps else 0.0
        steady = 0.0 <= step <= max(LONGEST_STEP, SLOWEST * usual)
        if steady:
            self.seconds += step
        else:
            self.jumps += 1
        if step >= 0:
            self._steps.append(step)
        return steady


class RuleState:
    """One rule on one stream: off until its condition has held for its seconds, on until it has cleared for others.

    `since`: the observed time at which the state that is on began to hold; `share`: the latest; `peak`: the highest of
    the event so far, or the lowest where the rule is about too little.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.active = False
        self.since = 0.0
        self.share = 0.0
        self.peak = 0.0
        self._pending: float | None = None  # since when it is about to change

    def restart(self) -> None:
        """After a jump in time: what was about to change has to hold anew."""
        self._pending = None

    def update(self, share: float, now: float) -> bool:
        """Take the share at the observed time `now`; True where the state has changed."""
        rule, self.share = self.rule, share
        changing = (rule.clear if self.active else rule.when.compared).holds(share)
        if not changing:
            self._pending = None
        elif self._pending is None:
            self._pending = now
        if self.active or changing:
            self._note(share, first=not self.active and self._pending == now)
        needed = rule.clear_seconds if self.active else rule.when.seconds
        # A millionth of a second is rounding: 15 steps of 1/30 s are half a second.
        if self._pending is None or now - self._pending < needed - 1e-6:
            return False
        self.since, self._pending, self.active = self._pending, None, not self.active
        return True

    def _note(self, share: float, first: bool) -> None:
        best = max if self.rule.when.compared.upward else min
        self.peak = share if first else best(self.peak, share)
