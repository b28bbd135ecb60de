"""DeviceCollector: temperature, power and throttling of this machine, read when Prometheus scrapes.

Sensors that a machine lacks export nothing but their description.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeseg.bench.sensors import Sensors
from edgeseg.telemetry.families import family

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class DeviceCollector:
    """Register it with a registry of prometheus-client."""

    def __init__(self, sensors: Sensors | None = None):
        self._sensors = sensors or Sensors()

    def describe(self) -> list[Metric]:
        """Names for the registry's check for duplicates, without reading a sensor."""
        return []

    def collect(self) -> Iterator[Metric]:
        now = self._sensors.sample()
        rows = {
            "edgeseg_temperature_celsius": now.celsius,
            "edgeseg_power_watts": now.watts,
            "edgeseg_energy_joules": now.joules,
            "edgeseg_throttled": now.throttled,
        }
        for name, value in rows.items():
            found = family(name)
            if value is not None:
                found.add_metric([], value)
            yield found
