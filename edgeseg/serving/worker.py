"""Worker: one opened bundle and the two threads that keep every inference slot of it busy.

The feeder resizes images into free slots and starts them; the collector waits for the oldest and makes its class map.
Engines take one image at a time, so nothing is gained by collecting requests into batches: several slots (throughput
mode) keep the cores busy instead, and no request waits for another one to come.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from edgeseg.bundle import Bundle
from edgeseg.errors import BundleError, EdgesegError
from edgeseg.images import Image
from edgeseg.monitoring.undecided import ReviewPolicy
from edgeseg.result import Frame, Result
from edgeseg.runtime import golden_agreement, open_segmenter
from edgeseg.segmenter import Segmenter
from edgeseg.signature import Required
from edgeseg.spec import Spec

log = logging.getLogger(__name__)
STALLED_SECONDS = 60.0
MIN_AGREEMENT = 0.99  # with a golden class map, as edgeseg verify asks for


@dataclass(frozen=True)
class Opener:
    """How bundles are opened: see runtime.open_segmenter. `threads` 0: as many as this process may use.
    `min_confidence`, `review_class`: which results are undecided, see monitoring/undecided.py."""

    mode: str = "throughput"
    threads: int = 0
    required: Required | None = None
    min_confidence: float | None = None
    review_class: tuple[str, ...] = ()

    def open(self, source: Bundle | Path) -> Worker:
        """A worker for a bundle whose golden frames come out right on this machine; BundleError where they do not."""
        bundle = source if isinstance(source, Bundle) else Bundle.load(source)
        review = ReviewPolicy.of(bundle.spec, self.min_confidence, self.review_class)
        options: dict[str, Any] = {"threads": self.threads} if self.threads else {}
        segmenter = open_segmenter(bundle, mode=self.mode, required=self.required, **options)
        try:
            shares = golden_agreement(segmenter, bundle)
            if min(shares, default=0.0) < MIN_AGREEMENT:
                raise BundleError(
                    f"Bundle {bundle.name}: a golden frame agrees on {min(shares, default=0):.2%} of pixels only.",
                    f"Expected {MIN_AGREEMENT:.0%}. This machine or runtime computes something else, or it holds no "
                    "golden frames; compile it again.",
                )
        except BaseException:
            segmenter.close()
            raise
        segmenter.keep_detail()
        return Worker(bundle, segmenter, review)


class Worker:
    """Takes images until close(); what was taken before is still answered. Any thread may submit."""

    def __init__(self, bundle: Bundle, segmenter: Segmenter, review: ReviewPolicy | None = None):
        self.bundle = bundle
        self._review = review
        self.slots = segmenter.slots
        self.backend = segmenter.backend
        self._segmenter = segmenter
        self._free = threading.Semaphore(segmenter.slots)
        self._waiting: SimpleQueue[tuple[Image, bool, Future[Result]] | None] = SimpleQueue()
        self._started: SimpleQueue[Future[Result] | None] = SimpleQueue()
        self._busy_since: float | None = None
        self._threads = [
            threading.Thread(target=run, name=f"edgeseg-{run.__name__.strip('_')}", daemon=True)
            for run in (self._feed, self._collect)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def spec(self) -> Spec:
        return self.bundle.spec

    def submit(self, image: Image, margin: bool = False) -> Future[Result]:
        """The result of [H, W, 3] uint8 BGR, with its margin if asked for. Cancelling it before it starts saves the
        work."""
        future: Future[Result] = Future()
        self._waiting.put((image, margin or self._review is not None, future))
        return future

    def stalled(self) -> bool:
        """Whether the engine has worked on one image for STALLED_SECONDS, or a thread has died."""
        since = self._busy_since
        hangs = since is not None and time.monotonic() - since > STALLED_SECONDS
        return hangs or not all(thread.is_alive() for thread in self._threads)

    def close(self, seconds: float | None = None) -> None:
        """Answer what was taken, then close the engine; wait for that, at most `seconds`."""
        self._waiting.put(None)
        for thread in self._threads:
            thread.join(seconds)

    def _feed(self) -> None:
        while (job := self._waiting.get()) is not None:
            image, margin, future = job
            self._free.acquire()
            if not future.set_running_or_notify_cancel():  # its deadline passed while it waited
                self._free.release()
                continue
            try:
                self._segmenter.submit(Frame(image), margin)
            except Exception as error:
                self._free.release()
                future.set_exception(error)
            else:
                self._started.put(future)
            del job, image, future  # or the image would live until the next one comes
        self._started.put(None)

    def _decided(self, result: Result) -> Result:
        return replace(result, decision=self._review.decide(result)) if self._review else result

    def _collect(self) -> None:
        while (future := self._started.get()) is not None:
            self._busy_since = time.monotonic()
            try:
                future.set_result(self._decided(self._segmenter.collect()))
            except Exception as error:
                future.set_exception(error)
            finally:
                self._busy_since = None
                self._free.release()
            del future
        try:
            self._segmenter.close()
        except EdgesegError as error:
            log.warning("closing %s: %s", self.bundle.name, error.what)
