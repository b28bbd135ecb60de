"""Accuracy in the field as blocks of a report: its track over time, and the figures of each camera and class."""

from __future__ import annotations

from datetime import date

from edgeseg.report.blocks import Block, Heading, Table, Text
from edgeseg.report.charts import Track, TrackPoint
from edgeseg.results.accuracy import AccuracyResult, SampleScore, WindowAccuracy
from edgeseg.results.common import Interval


def accuracy(d: AccuracyResult) -> list[Block]:
    best = d.random or d.all
    what = "frames that were drawn at random" if d.random else "labeled frames"
    accepted = "" if d.limit is None else f" Accepted: {100 * d.limit:.1f} ({d.limit_from})."
    blocks: list[Block] = [
        Heading(f"Accuracy in the field: {d.bundle.name}"),
        Text(
            f"mIoU {_pc(best.miou)} (95 % interval {_span(best.interval)}) on {best.frames} {what} in the latest "
            f"{d.recent:g} days.{accepted}",
            strong=True,
        ),
        *(Text(note) for note in d.notes),
        *_missing(d),
        Table(["camera", "frames", "mIoU, all", "95 %", "at random", "mIoU", "95 %", "verdict"], _cameras(d)),
        *_tracks(d),
        Heading("By class", 3),
        Table(
            ["class", "IoU, all", "95 %", *(["IoU, at random", "95 %"] if d.random else [])],
            [[name, *_class(d.all, name), *(_class(d.random, name) if d.random else [])] for name in d.all.iou],
        ),
    ]
    problems = [[problem.frame, problem.what] for problem in d.problems]
    return [*blocks, Heading("Problems", 3), Table(["frame", "what"], problems, text=True)] if problems else blocks


def _missing(d: AccuracyResult) -> list[Block]:
    text = f"{d.missing} frames that were drawn at random are not labeled: the figures are without them."
    return [Text(text)] if d.missing else []


def _cameras(d: AccuracyResult) -> list[list[str]]:
    return [
        [camera.camera, *_figures(camera.all), *_figures(camera.random), camera.verdict or "-"] for camera in d.cameras
    ]


def _tracks(d: AccuracyResult) -> list[Block]:
    """A line for each camera, of the frames drawn at random where there are any, else of all."""
    series: dict[str, list[TrackPoint]] = {}
    for row in d.windows:
        score = row.random if d.random else row.all
        if score is not None and score.miou is not None:
            series.setdefault(row.camera, []).append(_point(row, score))
    if not series:
        return []
    which = "of frames drawn at random" if d.random else "of all labeled frames"
    limit = None if d.limit is None else 100 * d.limit
    title = f"mIoU by {d.window} (UTC), {which}; bars are 95 % intervals, where there are frames enough for one"
    return [Heading("Over time", 3), Track(title, "mIoU, %", series, limit)]


def _point(row: WindowAccuracy, score: SampleScore) -> TrackPoint:
    low, high = (100 * v for v in score.interval) if score.interval else (None, None)
    return TrackPoint(date.fromisoformat(row.begin).toordinal(), row.begin, 100 * (score.miou or 0.0), low, high)


def _class(score: SampleScore, name: str) -> list[str]:
    return [_pc(score.iou[name]), _span(score.iou_interval[name])]


def _figures(score: SampleScore | None) -> list[str]:
    return ["-", "-", "-"] if score is None else [str(score.frames), _pc(score.miou), _span(score.interval)]


def _span(interval: Interval | None) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}" if interval else "-"


def _pc(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
