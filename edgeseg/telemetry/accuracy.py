"""Accuracy in the field as metrics: a file for the textfile collector of Prometheus's node_exporter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeseg.files import write_bytes
from edgeseg.results.accuracy import AccuracyResult, SampleScore
from edgeseg.telemetry.catalog import ACCURACY, METRICS
from edgeseg.telemetry.families import family, require_client

VERDICTS = ("pass", "fail", "undecided")


def write(result: AccuracyResult, path: Path) -> None:
    """MissingPackage without prometheus-client, FileError where it cannot be written."""
    client = require_client()
    registry = client.CollectorRegistry()
    registry.register(_Collector(result))
    write_bytes(path, client.generate_latest(registry), durable=False)


class _Collector:
    def __init__(self, result: AccuracyResult):
        self._result = result

    def collect(self) -> Iterator[object]:
        families = {metric.name: family(metric.name) for metric in METRICS if metric.where == ACCURACY}
        for name, labels, value in rows(self._result):
            families[name].add_metric(labels, value)
        yield from families.values()


def rows(result: AccuracyResult) -> Iterator[tuple[str, list[str], float]]:
    """(name, label values in the order of the catalog, value)."""
    for camera in result.cameras:
        yield from _sample(camera.camera, "all", camera.all)
        if camera.random:
            yield from _sample(camera.camera, "random", camera.random)
        if result.limit is not None:
            yield "edgeseg_accuracy_limit_ratio", [camera.camera], result.limit
            for verdict in VERDICTS:
                yield "edgeseg_accuracy_verdict", [camera.camera, verdict], float(verdict == camera.verdict)


def _sample(camera: str, sample: str, score: SampleScore) -> Iterator[tuple[str, list[str], float]]:
    yield "edgeseg_accuracy_frames", [camera, sample], score.frames
    if score.miou is not None:
        yield "edgeseg_accuracy_miou_ratio", [camera, sample], score.miou
    if score.interval is not None:
        yield "edgeseg_accuracy_low_ratio", [camera, sample], score.interval[0]
        yield "edgeseg_accuracy_high_ratio", [camera, sample], score.interval[1]
