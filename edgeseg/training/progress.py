"""Progress of training: a log line per epoch, and at a terminal a bar below them."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, TaskID

from edgeseg.results.stage import EpochResult
from edgeseg.training import devices

log = logging.getLogger(__name__)
CACHE_LINES = 10  # log lines while the teacher cache is filled


class EpochProgress:
    """A context manager around the epochs of one stage. Only the main process reports."""

    def __init__(self, title: str, epochs: int, steps_per_epoch: int, finished_steps: int):
        self.title, self.epochs = title, epochs
        self.bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        total = epochs * steps_per_epoch
        self.task: TaskID = self.bar.add_task(title, total=total, completed=finished_steps)

    def __enter__(self) -> EpochProgress:
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.__exit__(kind, error, trace)

    def caching(self, done: int, total: int) -> None:
        """Frame `done` of `total` is in the teacher cache."""
        line = f"{self.title}: teacher cache, frame {done} of {total}"
        self.bar.update(self.task, description=line)
        if done == total or done % max(1, total // CACHE_LINES) == 0:
            self._log(line)

    def step(self) -> None:
        self.bar.advance(self.task)

    def epoch(self, result: EpochResult) -> None:
        line = (
            f"{self.title}: epoch {result.epoch} of {self.epochs}, loss {result.loss:.3f}, "
            f"val mIoU {result.val_miou:.3f}, pixel accuracy {result.val_accuracy:.3f}"
        )
        self.bar.update(self.task, description=line)
        self._log(f"{line}, {result.seconds:.0f} s")

    def _log(self, line: str) -> None:
        if devices.is_main_process():
            log.info(line)
