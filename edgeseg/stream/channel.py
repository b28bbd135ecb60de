"""Channel: a bounded queue between two threads that ends with a cause and never leaves either side waiting."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """The producer has finished and every item was taken."""


class Channel(Generic[T]):
    """At most `depth` items. When full, put() waits, or with `drop` discards the oldest item and counts it.

    `wake_up` is set whenever there is something new to look at: an item, or the end. `pass_on(discarded, next)` gives
    what stands for the item after a discarded one.
    """

    def __init__(
        self,
        depth: int,
        drop: bool = False,
        wake_up: threading.Event | None = None,
        pass_on: Callable[[T, T], T] | None = None,
    ):
        self.dropped = 0
        self._depth = depth
        self._drop = drop
        self._pass_on = pass_on
        self._wake_up = wake_up or threading.Event()
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._end: BaseException | None = None
        self._abandoned = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> bool:
        """False when the consumer has gone."""
        with self._changed:
            if self._drop and len(self._items) >= self._depth:
                item = self._discard(item)
            self._changed.wait_for(lambda: len(self._items) < self._depth or self._abandoned)
            if self._abandoned:
                return False
            self._items.append(item)
            self._changed.notify_all()
        self._wake_up.set()
        return True

    def _discard(self, newest: T) -> T:
        """Discard the oldest item; returns what is to be put for the newest."""
        oldest = self._items.popleft()
        self.dropped += 1
        if self._pass_on is None:
            return newest
        if not self._items:
            return self._pass_on(oldest, newest)
        self._items[0] = self._pass_on(oldest, self._items[0])
        return newest

    def get(self, timeout: float | None) -> T | None:
        """The oldest item; None if there is none within `timeout` seconds.

        Once all items are taken, raises the cause that finish() was given, or Closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._end is not None, timeout)
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._end is not None:
                raise self._end
            return None

    def finish(self, cause: BaseException | None = None) -> None:
        """No more items will come; get() raises `cause` (or Closed) after the last one."""
        with self._changed:
            if self._end is None:
                self._end = cause or Closed()
            self._changed.notify_all()
        self._wake_up.set()

    def abandon(self) -> None:
        """The consumer is gone: waiting items are discarded, and put() returns False from now on."""
        with self._changed:
            self._abandoned = True
            self._items.clear()
            self._changed.notify_all()
