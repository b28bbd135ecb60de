"""What is served under which name: how many requests are let in, reload and rollback.

Everything here but the opening of bundles happens in the event loop's thread, so that between two awaits nothing
changes: a request is given to the worker that is current at that moment, and that worker answers it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeseg.bundle import Bundle
from edgeseg.errors import EdgesegError, OptionError, did_you_mean, out_of_memory
from edgeseg.images import Image
from edgeseg.result import Result
from edgeseg.serving.errors import CONFLICT, NOT_FOUND, TOO_MANY, UNPROCESSABLE, HttpError
from edgeseg.serving.worker import Opener, Worker

log = logging.getLogger(__name__)
NAME = re.compile(r"[\w][\w.-]{0,99}")
SMOOTHING = 0.1  # weight of the newest time in the mean


@dataclass(frozen=True)
class Served:
    """A result and the bundle that it came from: during a reload, that may be the one before."""

    result: Result
    bundle: Bundle


@dataclass(frozen=True)
class Change:
    """What a reload or rollback did. `digest`: what serves now; `before`: what served before."""

    model: str
    digest: str
    before: str

    @property
    def changed(self) -> bool:
        return self.digest != self.before


class Model:
    """A name, the folder that its bundles are read from, and the worker that answers."""

    def __init__(self, name: str, path: Path, opener: Opener, queue: int):
        self.name = name
        self.path = path
        self.worker = opener.open(path)
        self.in_flight = 0
        self._opener = opener
        self._queue = queue
        self._previous: Bundle | None = None
        self._changing = asyncio.Lock()
        self._seconds = 0.01  # per image, measured as they come

    @property
    def waiting(self) -> int:
        """Images let in that have no slot."""
        return max(0, self.in_flight - self.worker.slots)

    @contextmanager
    def admitted(self, images: int) -> Iterator[None]:
        """Room for that many images; HttpError 429 where the queue is full."""
        if self.in_flight + images > self._queue + self.worker.slots:
            wait = max(1, math.ceil(self.in_flight * self._seconds / self.worker.slots))
            raise HttpError(
                TOO_MANY,
                f"Model {self.name} has {self.in_flight} images in work.",
                f"At most {self._queue} may wait; ask again in {wait} s.",
                wait,
            )
        self.in_flight += images
        try:
            yield
        finally:
            self.in_flight -= images

    async def segment(self, image: Image, margin: bool = False) -> Served:
        """[H, W, 3] uint8 BGR through the current bundle."""
        worker = self.worker
        result = await asyncio.wrap_future(worker.submit(image, margin))
        self._seconds += SMOOTHING * (sum(result.times.values()) - self._seconds)
        return Served(result, worker.bundle)

    async def reload(self) -> Change:
        """Read the folder again and serve what it holds once that is verified; HttpError leaves the old one serving."""
        return await self._change(self.path)

    async def rollback(self) -> Change:
        """Serve the bundle again that was served before the last change."""
        if self._previous is None:
            raise HttpError(CONFLICT, f"Model {self.name} has served one bundle only.", "There is none to go back to.")
        return await self._change(self._previous)

    async def _change(self, source: Bundle | Path) -> Change:
        if self._changing.locked():
            raise HttpError(CONFLICT, f"Model {self.name} is being reloaded.", "Wait until that is done.", 1)
        async with self._changing:
            before = self.worker.bundle
            new = await asyncio.to_thread(self._open_other, source, before.digest)
            if new is None:
                return Change(self.name, before.digest, before.digest)
            old, self.worker, self._previous = self.worker, new, before
            threading.Thread(target=old.close, name="edgeseg-close", daemon=True).start()
            log.info("model %s: serving %s instead of %s", self.name, new.bundle.digest[:12], before.digest[:12])
            return Change(self.name, new.bundle.digest, before.digest)

    def _open_other(self, source: Bundle | Path, digest: str) -> Worker | None:
        """A worker for it; None if it has this digest."""
        try:
            bundle = source if isinstance(source, Bundle) else Bundle.load(source)
            return None if bundle.digest == digest else self._opener.open(bundle)
        except Exception as error:
            known = error if isinstance(error, EdgesegError) else out_of_memory(error)
            if known is None:
                raise
            log.error("model %s: still serving %s: %s", self.name, digest[:12], known.what)
            raise HttpError(UNPROCESSABLE, f"{known.what} The bundle before still serves.", known.hint) from error

    def close(self, seconds: float) -> None:
        self.worker.close(seconds)


class Models:
    """Models by name; the first one is meant where a request names none."""

    def __init__(self, models: Sequence[Model]):
        self._models = {model.name: model for model in models}

    @classmethod
    def open(cls, places: dict[str, Path], opener: Opener, queue: int) -> Models:
        models: list[Model] = []
        try:
            for name, path in places.items():
                models.append(Model(name, path, opener, queue))
        except BaseException:
            for model in models:
                model.close(1.0)
            raise
        return cls(models)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def get(self, name: str | None) -> Model:
        """HttpError 404 for an unknown name."""
        if not name:
            return next(iter(self))
        if name not in self._models:
            raise HttpError(NOT_FOUND, f"There is no model {name[:100]!r}.", did_you_mean(name[:100], self._models))
        return self._models[name]

    def close(self, seconds: float = 5.0) -> None:
        for model in self:
            model.close(seconds)


def places(words: Sequence[str]) -> dict[str, Path]:
    """Folders by model name, of BUNDLE or NAME=BUNDLE; OptionError for names that clash or fit no address."""
    found: dict[str, Path] = {}
    for word in words:
        name, equals, rest = word.partition("=")
        path = Path(rest) if equals and not Path(word).is_dir() else Path(word)
        if path == Path(word):
            name = path.absolute().name
        if not NAME.fullmatch(name):
            raise OptionError(f"Model name {name[:100]!r}.", "Expected letters, digits, -, _ and .; give NAME=BUNDLE.")
        if name in found:
            raise OptionError(f"Two bundles are called {name}.", "Give one of them another name: NAME=BUNDLE.")
        found[name] = path
    return found
