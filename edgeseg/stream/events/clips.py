"""ClipRecorder: short videos of what led to an event and followed it, from a ring of JPEGs of bounded size."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edgeseg.errors import EdgesegError
from edgeseg.images import Image, resize
from edgeseg.stream.channel import Channel, Closed
from edgeseg.stream.encoders import encoder_for
from edgeseg.stream.partial import PartialFile

log = logging.getLogger(__name__)
QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 85)
WAITING = 4
CLOSE_SECONDS = 5.0
DEFAULT_FPS = 25.0
OnWritten = Callable[[Path], None]


@dataclass(frozen=True)
class Shot:
    """A frame as JPEG and its observed time in seconds."""

    seconds: float
    jpeg: bytes


@dataclass(frozen=True)
class Job:
    path: Path
    shots: tuple[Shot, ...]


class ClipRecorder:
    """Keeps the latest `before` + `after` seconds; begin() has them written, `after` seconds later, by a thread.

    Never more than `most_bytes` of JPEGs are kept: beyond that, clips begin later. `lost` counts clips that could not
    be written, or that came faster than they could be.
    """

    def __init__(self, before: float, after: float, most_bytes: int, on_written: OnWritten):
        self.lost = 0
        self.shortened = False
        self._before, self._after, self._most_bytes = before, after, most_bytes
        self._on_written = on_written
        self._ring: deque[Shot] = deque()
        self._bytes = 0
        self._closed = False
        self._begun: list[tuple[Path, float]] = []
        self._jobs: Channel[Job] = Channel(WAITING, drop=True)
        self._thread = threading.Thread(target=self._work, name="edgeseg-clips", daemon=True)
        self._thread.start()

    def add(self, image: Image, seconds: float) -> None:
        """Take the frame ([H, W, 3] BGR) at an observed time."""
        self._hand_over(seconds)
        shot = Shot(seconds, cv2.imencode(".jpg", image, QUALITY)[1].tobytes())
        self._ring.append(shot)
        self._bytes += len(shot.jpeg)
        while self._ring[0].seconds < seconds - self._before - self._after:
            self._bytes -= len(self._ring.popleft().jpeg)
        while self._bytes > self._most_bytes and len(self._ring) > 1:
            self._bytes -= len(self._ring.popleft().jpeg)
            self.shortened = True

    def begin(self, path: Path, seconds: float) -> None:
        """Have a clip around the observed time `seconds` written to `path`."""
        self._begun.append((path, seconds))

    def _hand_over(self, now: float, all_of_them: bool = False) -> None:
        due = [(path, at) for path, at in self._begun if all_of_them or now > at + self._after]
        for each in due:
            self._begun.remove(each)
            path, at = each
            shots = (shot for shot in self._ring if at - self._before <= shot.seconds <= at + self._after)
            self._jobs.put(Job(path, tuple(shots)))

    def close(self) -> bool:
        """Write what has begun, up to now; False where that was done before."""
        if self._closed:
            return False
        self._closed = True
        self._hand_over(0.0, all_of_them=True)
        self._jobs.finish()
        self._thread.join(CLOSE_SECONDS)
        self.lost += self._jobs.dropped + len(self._jobs)
        self._jobs.abandon()
        return True

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(None)
            except Closed:
                return
            assert job is not None
            try:
                self._on_written(write_clip(job))
            except (EdgesegError, OSError) as error:
                self.lost += 1
                log.warning("Clip %s is lost: %s", job.path, getattr(error, "what", error))


def write_clip(job: Job) -> Path:
    """The path it got; FileError or StreamError where it cannot be written."""
    if not job.shots:
        raise EdgesegError("no frame of it is left.")
    started = job.shots[0].seconds
    height, width = _decoded(job.shots[0]).shape[:2]
    part = PartialFile(job.path)
    try:
        encoder = encoder_for(job.path, rate_given=True)(part.path, width, height, _rate(job.shots))
        try:
            for shot in job.shots:
                encoder.write(resize(_decoded(shot), height, width), shot.seconds - started)
        finally:
            encoder.close()
        return part.keep(job.path, False) or job.path
    except BaseException:
        part.discard()
        raise


def _rate(shots: tuple[Shot, ...]) -> float:
    seconds = shots[-1].seconds - shots[0].seconds
    return min(max((len(shots) - 1) / seconds, 0.1), 1000.0) if seconds > 0 else DEFAULT_FPS


def _decoded(shot: Shot) -> Image:
    return np.asarray(cv2.imdecode(np.frombuffer(shot.jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)
