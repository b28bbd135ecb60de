"""Service: what the handlers of all APIs share: models, limits, metrics, and a pool of threads for images."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from edgeseg.cpus import usable_cpus
from edgeseg.serving.body import Memory
from edgeseg.serving.errors import DEADLINE, HttpError
from edgeseg.serving.guard import Traffic
from edgeseg.serving.metrics import ServerMetrics
from edgeseg.serving.models import Change, Model, Models
from edgeseg.serving.settings import Settings

T = TypeVar("T")


class Service:
    """Images are decoded and answers encoded in as many threads as there are CPUs, beside the event loop's."""

    def __init__(self, models: Models, settings: Settings):
        self.models = models
        self.settings = settings
        self.metrics = ServerMetrics(models)
        self.memory = Memory(settings.max_memory)
        self.traffic = Traffic()
        self._pool = ThreadPoolExecutor(usable_cpus(), thread_name_prefix="edgeseg-images")

    async def in_pool(self, work: Callable[..., T], *values: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *values)

    async def in_time(self, work: Awaitable[T]) -> T:
        """HttpError 504 where it takes longer than the deadline; what has not started by then is left out."""
        try:
            return await asyncio.wait_for(work, self.settings.deadline)
        except asyncio.TimeoutError:
            what = f"There is no answer within {self.settings.deadline:g} s."
            raise HttpError(DEADLINE, what, "The server has too much to do; ask again later.") from None

    async def change(self, model: Model, how: str) -> Change:
        """Reload a model, or roll it back."""
        try:
            change = await (model.reload() if how == "reload" else model.rollback())
        except Exception:
            self.metrics.reloaded(model.name, "refused")
            raise
        self.metrics.reloaded(model.name, "changed" if change.changed else "unchanged")
        return change

    @property
    def alive(self) -> bool:
        return not any(model.worker.stalled() for model in self.models)

    @property
    def ready(self) -> bool:
        return self.alive and not self.traffic.draining

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.models.close()
