"""Drift: `drift://alarms/` watches a stream and writes alarms.jsonl and then-and-now pictures into that folder.

The reference statistics are the bundle's, or those of `?reference=FILE.json` (`edgeseg drift --out` writes one).
`?patience=6s` is the least time that an alarm takes, `?days=7` how far false alarms are apart at least, on average,
`?pictures=0` writes none. A folder that cannot be written any more stops no watching: alarms are logged, too.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path

from edgeseg.errors import BundleError
from edgeseg.images import Image
from edgeseg.monitoring import monitor
from edgeseg.monitoring.monitor import USUAL_FPS, DriftMonitor
from edgeseg.monitoring.reference import given
from edgeseg.result import Result
from edgeseg.results.drift import Alarm, DriftState, ReferenceStatistics
from edgeseg.stream.sinks import Info, Sink, check_writable
from edgeseg.stream.uri import Convert, Uri, duration, flag, number

log = logging.getLogger(__name__)
FORMS = "drift://FOLDER/"
MARGIN_EVERY = monitor.MARGIN_EVERY
OPTIONS: dict[str, Convert] = {
    "reference": str,
    "patience": duration(0, 86400),
    "days": number(0.001, 10000),
    "pictures": flag,
}


def claims(uri: Uri) -> bool:
    return uri.scheme == "drift"


def open(uri: Uri, info: Info) -> Sink:
    path, options = uri.split(OPTIONS)
    return Drift(Path(path), info, **options)


class Drift(Sink):
    needs_frame = True

    def __init__(
        self,
        folder: Path,
        info: Info,
        reference: str = "",
        patience: float = monitor.PATIENCE / USUAL_FPS,
        days: float = monitor.DAYS,
        pictures: bool = True,
    ):
        super().__init__()
        self._file = folder / "alarms.jsonl"
        self._stream = info.name
        self._logged = ""
        self._monitor = DriftMonitor(
            _reference(reference, info),
            fps=info.fps,
            days=days,
            patience=round(patience * (info.fps or USUAL_FPS)),
            pictures=folder if pictures else None,
            then=info.golden(),
        )
        check_writable(self._file)
        self.files = [folder]

    def drift(self) -> DriftState | None:
        return self._monitor.state()

    def write(self, result: Result, image: Image | None) -> None:
        for alarm in self._monitor.observe(result):
            log.warning("%s: %s (frame %d)", self._stream or "drift", alarm.what, alarm.frame)
            self._keep(alarm)

    def _keep(self, alarm: Alarm) -> None:
        line = {"time": round(time.time(), 3), "stream": self._stream, **asdict(alarm)}
        failed = str(self._monitor.failed.what) if self._monitor.failed else ""
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            failed = f"Cannot write {self._file}: {error.strerror}."
        if failed and failed != self._logged:
            self.warnings.append(failed)
            log.warning("%s", failed)
        self._logged = failed


def _reference(path: str, info: Info) -> ReferenceStatistics:
    found = given(path, info.reference, info.spec.classes)
    if found is None:
        raise BundleError(
            "The bundle has no reference statistics to watch for drift.",
            "Make some from frames that are as they should be (edgeseg drift BUNDLE --reference FRAMES --out ref.json) "
            "and name them: drift://FOLDER/?reference=ref.json",
        )
    return found
