"""Events: `events://events.jsonl` gets a line when a rule of --rules begins to hold, and one when it ends.

Pictures and clips go into the folder beside it, `events/`: `?snapshot=0` leaves out the picture of the frame that
began the event, `?clip=5s` sets how many seconds before and after that frame its clip has (0s: no clip), and
`?memory_mb=64` how much memory the frames that wait for an event may take, as JPEGs. `?keep=30d` removes pictures and
clips that are older when the next event begins, `?rotate_mb=` is as of other JSON lines. A clip is written when its
last second is over.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgeseg.errors import FileError, OptionError
from edgeseg.images import Image, write_image
from edgeseg.result import Result
from edgeseg.stream.events.clips import ClipRecorder
from edgeseg.stream.events.watch import STARTED, Event, Observation
from edgeseg.stream.line_file import LineFile
from edgeseg.stream.sinks import Info, Sink, check_writable, require_rules
from edgeseg.stream.uri import Uri, duration, flag, number

FORMS = "events://FILE.jsonl"
IS_PATH = True
YEAR = 366 * 86400
OURS = re.compile(r"(\d{8}T\d{6}Z)-.*\d{4}\.(jpg|mp4)")
OPTIONS = {
    "snapshot": flag,
    "clip": duration(0, 300),
    "memory_mb": number(1, 100_000),
    "keep": duration(1, 100 * YEAR),
    "rotate_mb": number(0.001, 1e6),
}


def claims(uri: Uri) -> bool:
    return uri.scheme == "events"


def open(uri: Uri, info: Info) -> Sink:
    text, options = uri.split(OPTIONS)
    path = Path(text)
    if path.suffix.lower() != ".jsonl" or not path.stem:
        raise OptionError(f"{uri} does not name a file of JSON lines.", "Expected events://FILE.jsonl.")
    require_rules(uri, info)
    return Events(path, **options)


class Events(Sink):
    needs_events = True

    def __init__(
        self,
        path: Path,
        snapshot: bool = True,
        clip: float = 5.0,
        memory_mb: float = 64,
        keep: float | None = None,
        rotate_mb: float | None = None,
    ):
        super().__init__()
        self.needs_image = snapshot or clip > 0
        self._path = path
        self._folder = path.with_suffix("")
        self._snapshot = snapshot
        self._memory_mb = memory_mb
        self._keep_seconds = keep
        self._observation: Observation | None = None
        self._kept: dict[str, dict[str, str]] = {}  # by the id of an event: where its picture and clip are
        if self.needs_image:
            self._check_folder()
        self._lines = LineFile(path, rotate_mb, durable=True)
        self._clips = ClipRecorder(clip, clip, int(memory_mb * 1e6), self._note_clip) if clip else None

    def _check_folder(self) -> None:
        if self._folder.exists() and not self._folder.is_dir():
            raise FileError(f"{self._folder} is a file, but pictures of events go there.", "Name the events otherwise.")
        probe = self._folder / ".edgeseg.tmp"
        check_writable(probe)
        probe.unlink()

    @property
    def lost(self) -> int:
        return self._clips.lost if self._clips else 0

    def observe(self, observation: Observation) -> None:
        self._observation = observation

    def write(self, result: Result, image: Image | None) -> None:
        observation, self._observation = self._observation, None
        if observation is None:
            return
        if self._clips and image is not None:
            self._clips.add(image, observation.seconds)
        for event in observation.events:
            if event.event == "start":
                self._keep(event, observation.seconds, image)
            self._write_line(event)

    def _keep(self, event: Event, seconds: float, image: Image | None) -> None:
        self._remove_old()
        kept = self._kept[event.id] = {}
        if self._snapshot and image is not None:
            path = self._folder / f"{event.id}.jpg"
            write_image(path, image)
            kept["snapshot"] = str(path.relative_to(self._path.parent))
            self._note_folder()
        if self._clips:
            path = self._folder / f"{event.id}.mp4"
            self._clips.begin(path, seconds)
            kept["clip"] = str(path.relative_to(self._path.parent))

    def _remove_old(self) -> None:
        """Remove pictures and clips of events that began more than `keep` seconds ago; no other file."""
        if self._keep_seconds is None or not self._folder.is_dir():
            return
        oldest = f"{datetime.fromtimestamp(time.time() - self._keep_seconds, timezone.utc):{STARTED}}"
        for path in self._folder.iterdir():
            found = OURS.fullmatch(path.name)
            if found and found[1] < oldest:
                with suppress(OSError):  # removed by somebody else
                    path.unlink()

    def _write_line(self, event: Event) -> None:
        kept = self._kept.pop(event.id, {}) if event.event == "end" else self._kept.get(event.id, {})
        values: dict[str, Any] = {**event.to_dict(), **kept}
        self._lines.write(values)
        if self._path not in self.files:
            self.files.append(self._path)

    def _note_folder(self) -> None:
        if self._folder not in self.files:
            self.files.append(self._folder)

    def _note_clip(self, path: Path) -> None:
        self._note_folder()

    def conclude(self, events: tuple[Event, ...]) -> None:
        for event in events:
            self._write_line(event)

    def close(self) -> None:
        if self._clips and self._clips.close():
            if self._clips.shortened:
                text = f"{self._path}: clips begin later than asked: their frames do not fit {self._memory_mb:g} MB."
                self.warnings.append(f"{text} Raise memory_mb=.")
            if self._clips.lost:
                self.warnings.append(f"{self._path}: clips that could not be written: {self._clips.lost}.")
        self._lines.close()
