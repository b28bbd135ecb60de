"""Signals: how SIGINT (Ctrl-C) and SIGTERM end a command, whatever disposition it inherited.

A shell without job control starts background jobs (`edgeseg run ... &` in a script) with SIGINT ignored, and Python
leaves it so. Such a job must still stop cleanly when somebody sends it SIGINT on purpose, so our handlers are installed
in any case. SIGHUP is left as inherited: that is what `nohup` ignores, and means to.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SignalHandler = Callable[[int, FrameType | None], Any]


@contextmanager
def stop_event() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, for work that ends in its own time; a second one ends the process."""
    stop = threading.Event()

    def handle(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    with _handlers(handle):
        yield stop


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, so that open files and children are closed."""
    with _handlers(signal.default_int_handler):
        yield


def restore_interrupt() -> None:
    """Make SIGINT raise KeyboardInterrupt again where it was ignored when the process started."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _handlers(handler: SignalHandler) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
