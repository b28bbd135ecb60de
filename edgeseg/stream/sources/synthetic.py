"""Rendered street scenes: `synthetic://street?seed=7&frames=250&size=1280x720&night=0.3&fog=0.2`.

With `&fps=25` they arrive at that pace and behave like a camera; without `frames` they never end.
"""

from __future__ import annotations

from edgeseg.errors import unknown
from edgeseg.result import Frame
from edgeseg.stream.clock import SYSTEM_CLOCK, Clock
from edgeseg.stream.pace import Pace
from edgeseg.stream.sources import EndOfStream, Source
from edgeseg.stream.uri import Uri, number, size, whole

FORMS = "synthetic://street"
SCENES = ("street",)
OPTIONS = {
    "seed": whole(0, 2**31 - 1),
    "frames": whole(1, 10**9),
    "size": size,
    "night": number(0, 1),
    "fog": number(0, 1),
    "fps": number(0.01, 1000),
}


def claims(uri: Uri) -> bool:
    return uri.scheme == "synthetic"


def open(uri: Uri) -> Source:
    scene, options = uri.split(OPTIONS)
    if scene not in SCENES:
        raise unknown("synthetic scene", scene, SCENES)
    return Synthetic(**options)


class Synthetic(Source):
    def __init__(
        self,
        seed: int = 0,
        frames: int | None = None,
        size: tuple[int, int] = (1280, 720),
        night: float = 0.0,
        fog: float = 0.0,
        fps: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ):
        from edgeseg.synth.street import Street

        super().__init__()
        self._clock = clock
        self._street = Street(seed, height=size[1], width=size[0], night=night, fog=fog)
        self._index = 0
        self.count = frames
        self.fps = fps
        self.live = fps is not None
        self._pace = Pace(fps, self._clock) if fps else None

    def read(self, timeout: float) -> Frame | None:
        if self._index == self.count:
            raise EndOfStream
        if self._pace and not self._pace.wait(timeout):
            return None
        image, _ = self._street.frame(self._index)
        self._index += 1
        return Frame(image, self._index - 1, self._clock.monotonic())
