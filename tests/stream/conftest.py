"""What the stream tests share: a clock that they move themselves, and children that never outlive their test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from stream_helpers import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def start_process() -> Iterator[Callable[..., subprocess.Popen]]:
    """subprocess.Popen whose process, and what it started, is killed when the test ends, however it ends."""
    started: list[subprocess.Popen] = []

    def start(words: list[Any], **options: Any) -> subprocess.Popen:
        process = subprocess.Popen([str(word) for word in words], start_new_session=True, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                pipe.close()
