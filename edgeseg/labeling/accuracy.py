"""Accuracy in the field: what the scored frames of a history say of each camera, and of each of its days or weeks.

Frames that were chosen because they are uncertain, rare or new say nothing of how good a bundle is on all the others.
Where frames were drawn at random (monitoring/random_draw.py), these alone decide. Intervals are bootstrapped over
blocks: frames of one camera within `block` seconds are alike, and drawn together (Kuensch, "The jackknife and the
bootstrap for general stationary observations", Annals of Statistics 17, 1989); for few blocks they are wider.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from edgeseg.bundle import Bundle
from edgeseg.errors import OptionError, unknown
from edgeseg.evaluation.evaluate import Progress
from edgeseg.evaluation.metrics import Table, scores, table_of
from edgeseg.evaluation.statistics import intervals, miou, share_of_few
from edgeseg.labeling.history import History, HistoryHead
from edgeseg.labeling.scoring import Scored, score_new
from edgeseg.results.accuracy import AccuracyResult, CameraAccuracy, SampleScore, ScoredFrame, WindowAccuracy
from edgeseg.runtime import PROXY, open_segmenter

WINDOWS = ("day", "week")
UNNAMED = "main"  # a camera without a name, as in the metrics of a run
LEAST_BLOCKS = 10  # fewer say too little of their own spread
CHOSEN_ONLY = (
    "No frame was drawn at random: those that were chosen because the model is unsure of them, or has not seen such, "
    "do not tell how good it is on all that a camera sees. Collect with random=, and label those."
)
BOTH = (
    "Figures of all frames are of those that were chosen because the model is unsure of them, too; those drawn at "
    "random estimate the accuracy on all that a camera sees."
)
PLAIN = "It is not known how the frames were chosen: the figures are as good as that choice."


@dataclass(frozen=True)
class Accepted:
    """The mIoU, a share of 1, that every camera must reach; `source` says where it comes from."""

    miou: float
    source: str


@dataclass(frozen=True)
class View:
    """How scored frames are put together. `window`: day or week; `recent`: days before a camera's newest frame that
    tell how it stands; `block`: seconds."""

    accepted: Accepted | None = None
    window: str = "day"
    recent: float = 30.0
    block: float = 60.0

    def __post_init__(self) -> None:
        if self.window not in WINDOWS:
            raise unknown("window", self.window, WINDOWS)


def accepted_level(bundle: Bundle, least: float | None, drop: float) -> Accepted | None:
    """`least` points of mIoU, or `drop` points less than the bundle reached when it was compiled; None where that was
    not measured."""
    if least is not None:
        return Accepted(least / 100, "--min-miou")
    stored = bundle.manifest.metrics
    if stored is None or stored.miou is None:
        return None
    return Accepted(stored.miou - drop / 100, f"{drop:g} points below {100 * stored.miou:.1f} on {stored.data}")


def evaluate_field(
    bundle: Bundle, labels: Path, history: Path | None, view: View, progress: Progress | None = None
) -> AccuracyResult:
    """Score what is new in `labels` (a dataset), and see all that `history` knows together with it."""
    if history is not None and history.is_dir():
        raise OptionError(f"{history} is a folder.", "Name a file: --history accuracy.jsonl.")
    known = History(history, HistoryHead(bundle=bundle.name, digest=bundle.digest, classes=bundle.spec.classes))
    with open_segmenter(bundle, "throughput", backend=PROXY) as segmenter:
        scored = score_new(segmenter, labels, known, progress)
        backend = segmenter.backend
    return summarize(bundle, list(known.frames.values()), scored, view, backend)


def summarize(
    bundle: Bundle, history: Sequence[ScoredFrame], scored: Scored, view: View, backend: str
) -> AccuracyResult:
    """The figures of a history of one frame or more."""
    names = bundle.spec.classes
    stands = {name: _recent(own, view.recent) for name, own in sorted(_by_camera(history).items())}
    frames = [frame for own in stands.values() for frame in own]
    drawn = [frame for frame in frames if frame.random]
    cameras = tuple(_camera(name, own, names, view) for name, own in stands.items())
    return AccuracyResult(
        bundle=bundle.identity,
        new=len(scored.new),
        replaced=scored.replaced,
        known=len(history),
        missing=scored.missing,
        window=view.window,
        recent=view.recent,
        all=_sample(frames, names, view.block),
        random=_sample(drawn, names, view.block) if drawn else None,
        cameras=cameras,
        windows=_windows(history, names, view),
        limit=view.accepted.miou if view.accepted else None,
        limit_from=view.accepted.source if view.accepted else "",
        verdict=_worst([camera.verdict for camera in cameras]) if view.accepted else "",
        notes=(BOTH if drawn else CHOSEN_ONLY if any(frame.why for frame in frames) else PLAIN,),
        problems=scored.problems,
        backend=backend,
    )


def _by_camera(frames: Iterable[ScoredFrame]) -> dict[str, list[ScoredFrame]]:
    found: dict[str, list[ScoredFrame]] = {}
    for frame in frames:
        found.setdefault(frame.camera or UNNAMED, []).append(frame)
    return found


def _recent(frames: Sequence[ScoredFrame], days: float) -> list[ScoredFrame]:
    """Those of the latest days that have frames at all, and those of unknown time."""
    newest = max((frame.time for frame in frames if frame.time is not None), default=0.0)
    return [frame for frame in frames if frame.time is None or frame.time > newest - days * 86400]


def _camera(name: str, frames: list[ScoredFrame], names: tuple[str, ...], view: View) -> CameraAccuracy:
    drawn = [frame for frame in frames if frame.random]
    every = _sample(frames, names, view.block)
    random = _sample(drawn, names, view.block) if drawn else None
    if view.accepted is None:
        return CameraAccuracy(name, every, random)
    if random is None and any(frame.why for frame in frames):
        return CameraAccuracy(name, every, None, "undecided", "no frame of it was drawn at random")
    verdict, text = _verdict(random or every, view.accepted.miou)
    return CameraAccuracy(name, every, random, verdict, text + (" drawn at random" if random else ""))


def _verdict(score: SampleScore, limit: float) -> tuple[str, str]:
    """Below only where the whole interval is; at least only where all of it is, too."""
    if score.miou is None or score.interval is None:
        needed = f"{score.blocks} of {LEAST_BLOCKS} frames, apart in time, that an interval takes"
        return "undecided", f"accepted {100 * limit:.1f}; {needed}"
    low, high = score.interval
    verdict = "fail" if high < limit else "pass" if low >= limit else "undecided"
    figures = f"{100 * score.miou:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    return verdict, f"{figures}, accepted {100 * limit:.1f}; {score.frames} frames"


def _worst(verdicts: Sequence[str]) -> str:
    return next(word for word in ("fail", "undecided", "pass") if word in verdicts)


def _sample(frames: Sequence[ScoredFrame], names: tuple[str, ...], block: float) -> SampleScore:
    tables = _blocks(frames, len(names), block)
    total = tables.sum(0)
    iou = {name: None if np.isnan(v) else round(float(v), 6) for name, v in zip(names, scores(total)["iou"])}
    mean = float(miou(total))
    count = len(tables)
    known = intervals(tables, names, draw_share=share_of_few(count)) if count >= LEAST_BLOCKS else None
    return SampleScore(
        frames=len(frames),
        blocks=count,
        miou=None if np.isnan(mean) else round(mean, 6),
        interval=known.miou if known else None,
        iou=iou,
        iou_interval=known.iou if known else dict.fromkeys(names),
    )


def _blocks(frames: Sequence[ScoredFrame], classes: int, block: float) -> Table:
    """[B, C, 7]: the count tables of each block together; a frame of unknown time is one by itself."""
    found: dict[tuple[str, int, str], Table] = {}
    for frame in frames:
        key = (frame.camera, -1, frame.image) if frame.time is None else (frame.camera, int(frame.time // block), "")
        confusion = np.zeros((classes, classes), np.int64)
        for truth, prediction, pixels in frame.confusion:
            confusion[truth, prediction] = pixels
        table = table_of(confusion)
        found[key] = found[key] + table if key in found else table
    return np.stack(list(found.values()))


def _windows(frames: Sequence[ScoredFrame], names: tuple[str, ...], view: View) -> tuple[WindowAccuracy, ...]:
    found: dict[tuple[str, str], list[ScoredFrame]] = {}
    for camera, own in _by_camera(frames).items():
        for frame in own:
            if frame.time is not None:
                found.setdefault((camera, first_day(frame.time, view.window)), []).append(frame)
    rows = []
    for (camera, begin), own in sorted(found.items()):
        drawn = [frame for frame in own if frame.random]
        random = _sample(drawn, names, view.block) if drawn else None
        rows.append(WindowAccuracy(camera, begin, _sample(own, names, view.block), random))
    return tuple(rows)


def first_day(time: float, window: str) -> str:
    """The day, or the Monday of the week, in UTC, that a time belongs to: YYYY-MM-DD."""
    day = datetime.fromtimestamp(time, timezone.utc).date()
    return str(day - timedelta(days=day.weekday()) if window == "week" else day)
