"""ServerMetrics: what Prometheus scrapes of a server, in a registry of its own. Needs the package prometheus-client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgeseg import __version__
from edgeseg.result import Result
from edgeseg.serving.models import Models
from edgeseg.stream.metrics_server import resident_bytes
from edgeseg.telemetry.catalog import BY_NAME
from edgeseg.telemetry.device import DeviceCollector
from edgeseg.telemetry.families import BuildInfo, build_info, family, require_client
from edgeseg.telemetry.metrics import STAGE_BUCKETS

REQUEST_BUCKETS = (*STAGE_BUCKETS, 4.0, 8.0, 16.0)


class ServerMetrics:
    """Counts requests and times; gauges are read from the models at each scrape."""

    def __init__(self, models: Models):
        client = require_client()
        self._client = client
        self._registry = client.CollectorRegistry()
        self._requests = self._own(client.Counter, "edgeseg_requests")
        self._seconds = self._own(client.Histogram, "edgeseg_request_seconds", buckets=REQUEST_BUCKETS)
        self._images = self._own(client.Counter, "edgeseg_images")
        self._stage = self._own(client.Histogram, "edgeseg_stage_seconds", "model", buckets=STAGE_BUCKETS)
        self._changes = self._own(client.Counter, "edgeseg_reloads")
        self._areas: dict[str, dict[str, float]] = {}
        self._registry.register(_Gauges(models, self._areas))
        self._registry.register(DeviceCollector())

    def _own(self, kind: Any, name: str, *first: str, **options: Any) -> Any:
        """A metric of the catalog in this registry; `first`: labels before its own."""
        metric = BY_NAME[name]
        return kind(name, metric.help, (*first, *metric.labels), registry=self._registry, **options)

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def segmented(self, model: str, result: Result) -> None:
        self._areas[model] = result.areas(exact=False)
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

    def __init__(self, models: Models, areas: Mapping[str, Mapping[str, float]]):
        self._models = models
        self._areas = areas

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        in_flight, waiting, info = map(family, ("edgeseg_in_flight", "edgeseg_queue", "edgeseg_model_info"))
        areas = family("edgeseg_class_area_ratio", "model")
        builds = []
        for model in self._models:
            bundle = model.worker.bundle
            in_flight.add_metric([model.name], model.in_flight)
            waiting.add_metric([model.name], model.waiting)
            info.add_metric([model.name, bundle.digest, __version__], 1)
            builds.append(BuildInfo(__version__, bundle.name, bundle.digest, bundle.target, bundle.precision.value))
            for name, share in self._areas.get(model.name, {}).items():
                areas.add_metric([model.name, name], share)
        resident = family("edgeseg_resident_bytes")
        resident.add_metric([], resident_bytes())
        yield from (in_flight, waiting, info, areas, resident, build_info(builds))
