"""ServerMetrics: what Prometheus scrapes of a server, in a registry of its own. Needs the package prometheus-client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeseg import __version__
from edgeseg.result import Result
from edgeseg.serving.models import Models
from edgeseg.stream.metrics_server import resident_bytes
from edgeseg.telemetry.metrics import STAGE_BUCKETS, require_client

REQUEST_BUCKETS = (*STAGE_BUCKETS, 4.0, 8.0, 16.0)


class ServerMetrics:
    """Counts requests and times; gauges are read from the models at each scrape."""

    def __init__(self, models: Models):
        client = require_client()
        self._client = client
        self._registry = client.CollectorRegistry()
        own = {"registry": self._registry}
        self._requests = client.Counter("edgeseg_requests", "Requests answered.", ["route", "status"], **own)
        self._seconds = client.Histogram(
            "edgeseg_request_seconds", "Time from a request's header to its answer.", ["route"],
            buckets=REQUEST_BUCKETS, **own,
        )  # fmt: skip
        self._images = client.Counter("edgeseg_images", "Images segmented.", ["model"], **own)
        self._stage = client.Histogram(
            "edgeseg_stage_seconds", "Time that each stage of an image took.", ["model", "stage"],
            buckets=STAGE_BUCKETS, **own,
        )  # fmt: skip
        self._changes = client.Counter("edgeseg_reloads", "Reloads and rollbacks.", ["model", "result"], **own)
        self._registry.register(_Gauges(models, client))

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def segmented(self, model: str, result: Result) -> None:
        self._images.labels(model).inc()
        for stage, seconds in result.times.items():
            self._stage.labels(model, stage).observe(seconds)

    def reloaded(self, model: str, result: str) -> None:
        self._changes.labels(model, result).inc()

    def exposition(self) -> tuple[str, bytes]:
        """(content type, body) in the text format that Prometheus scrapes."""
        return self._client.exposition.CONTENT_TYPE_PLAIN_0_0_4, self._client.generate_latest(self._registry)


class _Gauges:
    """Read at scrape time."""

    def __init__(self, models: Models, client: Any):
        self._models = models
        self._family = client.core.GaugeMetricFamily

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        in_flight = self._family("edgeseg_in_flight", "Images let in and not answered.", labels=["model"])
        waiting = self._family("edgeseg_queue", "Images that wait for a free slot.", labels=["model"])
        info = self._family("edgeseg_model_info", "The bundle that serves.", labels=["model", "digest", "version"])
        for model in self._models:
            in_flight.add_metric([model.name], model.in_flight)
            waiting.add_metric([model.name], model.waiting)
            info.add_metric([model.name, model.worker.bundle.digest, __version__], 1)
        yield from (in_flight, waiting, info)
        yield self._family("edgeseg_resident_bytes", "Memory of the process.", value=resident_bytes())
