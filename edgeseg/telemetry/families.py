"""Metric families of prometheus-client, made from the catalog."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgeseg.errors import MissingPackage
from edgeseg.telemetry.catalog import BUILD_LABELS, BY_NAME, COUNTER, labels


@dataclass(frozen=True)
class BuildInfo:
    """Labels of edgeseg_build_info."""

    version: str
    bundle: str
    digest: str
    target: str
    precision: str


def require_client() -> Any:
    """The module prometheus_client; MissingPackage where it is not installed."""
    try:
        import prometheus_client
        import prometheus_client.core
        import prometheus_client.exposition
    except ImportError as error:
        raise MissingPackage("prometheus-client", "Serving metrics", "metrics") from error
    return prometheus_client


def family(name: str, owner: str = "stream") -> Any:
    """An empty counter or gauge of the catalog, to be filled at scrape time with add_metric(label values, value)."""
    core = require_client().core
    metric = BY_NAME[name]
    kind = core.CounterMetricFamily if metric.kind == COUNTER else core.GaugeMetricFamily
    return kind(name, metric.help, labels=labels(name, owner))


def build_info(builds: Iterable[BuildInfo]) -> Any:
    """edgeseg_build_info with a row for each different bundle that runs."""
    found = family("edgeseg_build_info")
    for build in dict.fromkeys(builds):
        found.add_metric([getattr(build, label) for label in BUILD_LABELS], 1)
    return found
