"""Video files: `out.mp4` or `out.mkv` (H.264), or `out.avi` (Motion JPEG).

Frames keep their times: a file's media time, a camera's time of capture. An mp4 or mkv is H.264 and holds any times if
the extra `camera` (PyAV) is installed; else, and in an avi, the rate is constant (of a camera: measured), and frames
are repeated or left out. `?fps=15` gives every frame of a file the same time instead, and sets the rate of a camera's
avi. `?encoder=h264_nvenc` names another encoder of PyAV's FFmpeg (encoders.py), such as one on a chip.

A file is hidden and locked while it is written (partial.py) and takes its name on close. An mp4 or mkv plays at any
time, so that a kill or a power cut costs a second. An existing file is never replaced (`out-2.mp4`), unless
`?overwrite=1` says so. `?segment=10m` begins a new file every 10 minutes, named by its start
(`out-20260501T123000Z.mp4`, UTC), and `&keep=24h` removes those that are older.
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import cv2

from edgeseg.errors import FileError, OptionError, StreamError
from edgeseg.images import Image, resize
from edgeseg.result import Frame, Result
from edgeseg.stream.encoders import CODECS, Encoder, encoder_for
from edgeseg.stream.partial import PartialFile, free_name, plays
from edgeseg.stream.sinks import Info, Sink, require_space
from edgeseg.stream.uri import Convert, Uri, duration, flag, number

log = logging.getLogger(__name__)
FORMS = "FILE.mp4, FILE.mkv, FILE.avi"
DEFAULT_FPS = 25.0
YEAR = 366 * 86400
OPTIONS: dict[str, Convert] = {
    "fps": number(0.1, 1000),
    "encoder": str,
    "overwrite": flag,
    "segment": duration(1, YEAR),
    "keep": duration(1, 100 * YEAR),
}
STARTED = "%Y%m%dT%H%M%SZ"


def claims(uri: Uri) -> bool:
    path = Path(uri.path)
    return not uri.scheme and path.suffix.lower() in CODECS and not path.is_dir()


def open(uri: Uri, info: Info) -> Sink:
    path, options = uri.split(OPTIONS)
    if "keep" in options and "segment" not in options:
        raise OptionError(f"{uri}: keep= without segment=.", "Only segments are removed: FILE.mp4?segment=10m&keep=24h")
    recording = Recording(
        fps=options.get("fps") or info.fps or DEFAULT_FPS,
        live=info.live,
        rate_given="fps" in options,
        overwrite=options.get("overwrite", False) and not info.part,  # the parts before it are of this run
        segment=options.get("segment"),
        keep=options.get("keep"),
        encoder=options.get("encoder", ""),
    )
    return VideoFile(Path(path), recording, first=not info.part)


@dataclass(frozen=True)
class Recording:
    """How a video is written. `rate_given`: `fps` was asked for. `segment`, `keep`: seconds."""

    fps: float = DEFAULT_FPS
    live: bool = False
    rate_given: bool = False
    overwrite: bool = False
    segment: float | None = None
    keep: float | None = None
    encoder: str = ""


class VideoFile(Sink):
    needs_image = True

    def __init__(self, path: Path, how: Recording, first: bool = True):
        super().__init__()
        self.path = path
        self._how = how
        self._open_encoder = encoder_for(path, how.live, how.rate_given, how.encoder)
        self._encoder: Encoder | None = None
        self._size = (0, 0)
        self._written = 0  # frames of all files
        self._started = 0.0  # of this file, on the axis of _time_of
        self._started_unix = 0.0
        self._left_out = 0  # of the files that are finished
        self._part: PartialFile | None = PartialFile(path, self._name_of_leftover)
        if first and not how.overwrite and not how.segment and (name := free_name(path)) != path:
            log.warning("%s exists and is kept: this recording will be %s (?overwrite=1 replaces it).", path, name)
        try:
            require_space(path.parent)
            self._remove_old()
        except Exception:
            self._part.discard()
            raise

    @property
    def lost(self) -> int:
        return self._left_out + (self._encoder.left_out if self._encoder else 0)

    def write(self, result: Result, image: Image | None) -> None:
        assert image is not None
        now = self._time_of(result.frame)
        if self._encoder and self._how.segment and now - self._started >= self._how.segment:
            self._finish()
        if self._encoder is None:
            self._begin(result.frame, image)
        width, height = self._size
        if image.shape[:2] != (height, width):
            self._note_resize()
            image = resize(image, height, width)
        assert self._encoder is not None
        self._encoder.write(image, now - self._started)
        self._written += 1

    def _begin(self, frame: Frame, image: Image) -> None:
        self._part = self._part or PartialFile(self.path, self._name_of_leftover)
        self._size = (image.shape[1], image.shape[0])
        self._started = self._time_of(frame)
        self._started_unix = time.time() - max(time.monotonic() - frame.captured, 0.0) * self._how.live
        self._encoder = self._open_encoder(self._part.path, *self._size, self._how.fps)

    def _time_of(self, frame: Frame) -> float:
        """Seconds on the axis that the video keeps; only the first frame says where it starts."""
        if self._how.live:
            return frame.captured
        if frame.pts is None or self._how.rate_given:
            return self._written / self._how.fps
        return frame.pts

    def _note_resize(self) -> None:
        text = f"{self.path}: the frame size changed; frames are stretched to {self._size[0]}x{self._size[1]}."
        if text not in self.warnings:
            self.warnings.append(text)

    def _name(self, started_unix: float) -> Path:
        if not self._how.segment:
            return self.path
        started = datetime.fromtimestamp(started_unix, timezone.utc)
        return self.path.with_stem(f"{self.path.stem}-{started:{STARTED}}")

    def _name_of_leftover(self, part: Path) -> Path:
        capture = cv2.VideoCapture(str(part.absolute()), cv2.CAP_FFMPEG)
        fps = capture.get(cv2.CAP_PROP_FPS)
        seconds = capture.get(cv2.CAP_PROP_FRAME_COUNT) / fps if fps > 0 else 0.0
        capture.release()
        return self._name(part.stat().st_mtime - min(max(seconds, 0.0), YEAR))

    def close(self) -> None:
        if self._encoder is not None:
            self._finish()
        elif self._part is not None:
            self._part.discard()
            self._part = None

    def _finish(self) -> None:
        """Give the file its name. What plays is kept even where the encoder fails, and the failure raised."""
        encoder, self._encoder = self._encoder, None
        part, self._part = self._part, None
        assert encoder is not None and part is not None
        try:
            encoder.close()
        finally:
            self._left_out += encoder.left_out
            self._keep(part)
        self._remove_old()
        if encoder.left_out:
            self._note_left_out(encoder.left_out)

    def _keep(self, part: PartialFile) -> None:
        # A full disk is not always reported, so look at what there is.
        if not plays(part.path):
            part.discard()
            raise StreamError(f"Video {self.path} could not be finished.", "The disk may be full, or its folder gone.")
        try:
            kept = part.keep(self._name(self._started_unix), self._how.overwrite and not self._how.segment)
        except OSError as error:
            part.leave()
            raise FileError(f"Cannot write {self.path}: {error.strerror}.", "Was its folder removed?") from error
        if kept:
            self.files.append(kept)

    def rescue(self) -> None:
        part = self._part
        if part is not None and self._encoder is not None:
            with suppress(OSError):
                part.keep(self._name(self._started_unix), self._how.overwrite and not self._how.segment)

    def _remove_old(self) -> None:
        """Remove this recording's segments that began more than `keep` seconds ago; no other file."""
        if self._how.keep is None:
            return
        ours = re.compile(rf"{re.escape(self.path.stem)}-(\d{{8}}T\d{{6}}Z)(-\d+)?{re.escape(self.path.suffix)}")
        oldest = time.time() - self._how.keep - (self._how.segment or 0.0)
        for path in self.path.parent.iterdir():
            found = ours.fullmatch(path.name)
            with suppress(ValueError, OSError):  # not a date, or removed by somebody else
                started = datetime.strptime(found[1], STARTED).replace(tzinfo=timezone.utc) if found else None
                if started and started.timestamp() < oldest and path.is_file():
                    path.unlink()
                    self.files = [p for p in self.files if p != path]

    def _note_left_out(self, number: int) -> None:
        self.warnings.append(
            f"{self.path}: frames left out: {number}. At a constant frame rate their time was taken. "
            "FILE.mp4 with 'edgeseg[camera]' keeps frames and times, ?fps= of a video file keeps the frames."
        )
