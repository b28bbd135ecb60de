"""Which frames go through the network: every k-th, or as few as an accuracy limit allows.

AutoInterval watches itself. At every key frame the class map that reuse would have given is compared with the
network's: the share of pixels in which they differ, less what two neighboring frames differ by anyway (the network's
own flicker, measured by two key frames in a row now and then), is what the interval has cost by its end. A bundle that
was calibrated on a labeled clip says how many points of mIoU that is worth. Without, one percent of the pixels counts
as one point, and the loss grows evenly from nothing, so that its mean is half of that at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edgeseg.errors import OptionError
from edgeseg.reuse.track import Step

AUTO = "auto"
MAX_DROP = 1.0  # points of mIoU

EVERY_FRAME = 0.1  # change that is counted for a frame in which nothing moves
LONGEST = 30  # frames
PROBE_EVERY = 12  # key frames
POINTS = 0.5  # of mIoU for each percent of pixels at the end of an interval
MEMORY = 0.3  # weight of the newest measurement in a mean
SLOWLY = 0.05  # the same, of what is usual
GENTLE = (0.5, 1.2)  # the most that the interval shrinks and grows at once
START = 2.0


class Policy(Protocol):
    learns: bool
    """Whether learn() is to be called."""

    def decide(self, step: Step) -> bool:
        """Whether this frame goes through the network; called for every frame in order."""
        ...

    def learn(self, difference: float, interval: int) -> None:
        """The share of pixels in which a key frame's class map is not what reuse had given, `interval` frames after the
        key frame before. Called in order, not for cuts."""
        ...

    @property
    def drop(self) -> float | None:
        """The estimated loss in points of mIoU; None where nobody measured."""
        ...


def parse(reuse: str, max_drop: float | None = None, points: float | None = None) -> Callable[[int], Policy]:
    """What `--reuse` and `--max-drop` say, as the policy of the n-th stream; OptionError for anything else."""
    if reuse == AUTO:
        limit = MAX_DROP if max_drop is None else max_drop
        if not 0 < limit <= 100:
            raise OptionError(f"--max-drop is {limit:g}.", "Expected points of mIoU, more than 0: --max-drop 1")
        return lambda stream: AutoInterval(limit, POINTS if points is None else points)
    if max_drop is not None:
        raise OptionError("--max-drop is for --reuse auto.", "Leave it out, or give --reuse auto.")
    if not reuse.isascii() or not reuse.isdigit() or not 1 <= int(reuse[:9]) <= LONGEST:
        raise OptionError(
            f"--reuse is {reuse!r}.", f"Expected {AUTO}, or how many frames share an inference: 1 to {LONGEST}."
        )
    return lambda stream: FixedInterval(int(reuse), stream)


class FixedInterval:
    """Every k-th frame, and cuts. `phase`: so many frames earlier the first time, so that cameras that share an engine
    keep their key frames apart."""

    learns = False
    drop = None

    def __init__(self, every: int, phase: int = 0):
        self._every = every
        self._phase = phase % every
        self._since = 0

    def decide(self, step: Step) -> bool:
        self._since += 1
        if step.cut:
            self._since, self._phase = self._phase, 0
            return True
        if self._since >= self._every and step.reference:
            self._since = 0
            return True
        return False

    def learn(self, difference: float, interval: int) -> None:
        pass


class AutoInterval:
    """As few key frames as keep the estimated loss below `max_drop` points of mIoU.

    `points`: of mIoU for each percent of pixels, see the module's docstring. Frames in which much happens count more
    than quiet ones, so that a static camera needs few key frames and a turn of the camera gets more at once.
    """

    learns = True

    def __init__(self, max_drop: float, points: float = POINTS):
        self._limit = max_drop / points / 100  # a share of pixels
        self._points = points
        self._budget = START  # frames of the usual change
        self._usual = 0.0
        self._since = self._used = 0.0
        self._keys = 0
        self._excess: float | None = None
        self._flicker: float | None = None

    @property
    def drop(self) -> float | None:
        return None if self._excess is None else 100 * self._points * self._excess

    def decide(self, step: Step) -> bool:
        self._since += 1
        change = EVERY_FRAME + step.change
        if not step.cut:
            self._usual = self._usual + SLOWLY * (change - self._usual) if self._usual else change
            self._used += change / self._usual
        due = self._since >= LONGEST or self._used + 0.5 >= self._budget or self._keys % PROBE_EVERY == 1
        if step.cut or (due and step.reference):
            self._since = self._used = 0.0
            self._keys += 1
            return True
        return False

    def learn(self, difference: float, interval: int) -> None:
        if interval == 1:
            self._flicker = difference if self._flicker is None else _mean(self._flicker, difference)
            return
        if self._flicker is None:
            return
        excess = max(0.0, difference - self._flicker)
        self._excess = excess if self._excess is None else _mean(self._excess, excess)
        ratio = (self._limit / max(excess, self._excess, 1e-4)) ** 0.5
        self._budget = min(max(self._budget * min(max(ratio, GENTLE[0]), GENTLE[1]), 1.0), LONGEST)


def _mean(old: float, new: float) -> float:
    return old + MEMORY * (new - old)
