"""Streams run in real time: on a machine whose cores are taken, a frame can come late and a test see it.

What these tests assert holds in every run that gets the processor, so one that fails is run again, twice at most; a
fault of ours fails all three times.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=1))
