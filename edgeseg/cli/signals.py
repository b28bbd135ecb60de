"""Signals: how SIGINT (Ctrl-C), SIGTERM and SIGHUP end a command, whatever disposition it inherited.

A shell without job control starts background jobs (`edgeseg run ... &` in a script) with SIGINT ignored, and Python
leaves it so. Such a job must still stop cleanly when somebody sends it SIGINT on purpose, so our handlers are installed
in any case. SIGHUP is left alone where it is ignored: that is what `nohup` does, and means to.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SignalHandler = Callable[[int, FrameType | None], Any]


class Stop(threading.Event):
    """Set by the first signal. `last_act`: what to do when a second one ends the process, within moments."""

    def __init__(self) -> None:
        super().__init__()
        self.last_act: Callable[[], None] | None = None


@contextmanager
def stop_event() -> Iterator[Stop]:
    """An event that a signal sets, for work that ends in its own time; a second one ends the process."""
    stop = Stop()

    def handle(number: int, _: FrameType | None) -> None:
        for each in SIGNALS:
            if signal.getsignal(each) is handle:
                signal.signal(each, end if stop.last_act else signal.SIG_DFL)
        stop.set()

    def end(number: int, _: FrameType | None) -> None:
        for each in SIGNALS:
            if signal.getsignal(each) is end:
                signal.signal(each, signal.SIG_DFL)
        try:
            if stop.last_act:
                stop.last_act()
        finally:
            os.kill(os.getpid(), number)

    with _handlers(handle):
        yield stop


@contextmanager
def interruptible() -> Iterator[None]:
    """A signal raises KeyboardInterrupt in the main thread, so that open files and children are closed."""
    with _handlers(signal.default_int_handler):
        yield


def restore_interrupt() -> None:
    """Make SIGINT raise KeyboardInterrupt again where it was ignored when the process started."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _handlers(handler: SignalHandler) -> Iterator[None]:
    ours = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in ours}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
