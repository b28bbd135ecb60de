"""discovery: what tells Home Assistant of the rules and zones of a stream, so that they appear without configuration.

The messages follow https://www.home-assistant.io/integrations/mqtt/#discovery-messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeseg import __version__
from edgeseg.stream.events.rules import Rule

PREFIX = "homeassistant"


def slug(text: str) -> str:
    """A text as discovery allows it in topics and ids."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_") or "edgeseg"


def discovery(
    base: str,
    stream: str,
    rules: Sequence[Rule],
    sensors: Mapping[str, Sequence[str]],
    prefix: str = PREFIX,
    review: bool = False,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(topic, payload) of a binary sensor for each rule, and of a sensor for each class of `sensors`, {zone: classes};
    with `review` also of a binary sensor for undecided results.

    `base`: the topic below which they are published, see sinks/mqtt.py.
    """
    node = slug(base)
    shared = {
        "availability_topic": f"{base}/availability",
        "qos": 1,
        "device": {
            "identifiers": [node],
            "name": stream or base,
            "manufacturer": "edgeseg",
            "model": "Image segmentation",
            "sw_version": __version__,
        },
        "origin": {"name": "edgeseg", "sw_version": __version__},
    }
    for rule in rules:
        payload = {
            "name": rule.name,
            "unique_id": f"{node}_rule_{rule.name}",
            "state_topic": f"{base}/rule/{rule.name}",
            "payload_on": "ON",
            "payload_off": "OFF",
        }
        yield f"{prefix}/binary_sensor/{node}/{rule.name}/config", payload | shared
    if review:
        payload = {
            "name": "undecided",
            "unique_id": f"{node}_undecided",
            "state_topic": f"{base}/undecided",
            "payload_on": "ON",
            "payload_off": "OFF",
            "device_class": "problem",
        }
        yield f"{prefix}/binary_sensor/{node}/_undecided/config", payload | shared
    for zone, classes in sensors.items():
        for number, name in enumerate(classes):
            key = f"{zone}_{number}_{slug(name)}"  # two names may have one slug
            sensor: dict[str, Any] = {
                "name": f"{zone} {name}",
                "unique_id": f"{node}_zone_{key}",
                "state_topic": f"{base}/zone/{zone}",
                "value_template": f"{{{{ value_json[{_quoted(name)}] }}}}",
                "unit_of_measurement": "%",
                "state_class": "measurement",
                "suggested_display_precision": 1,
            }
            yield f"{prefix}/sensor/{node}/{key}/config", sensor | shared


def _quoted(name: str) -> str:
    """A string of Jinja, the language of templates."""
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"
