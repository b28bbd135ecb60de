"""Cold start: a new process from its start to the first class map, and the memory it took."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from edgeseg.errors import EdgesegError
from edgeseg.results.bench import ColdStart

# The process prints when its first mask was ready; the clock is the system's, so the start of the process counts.
SCRIPT = """
import json, sys, time
import numpy
from edgeseg import open_segmenter
with open_segmenter(sys.argv[1]) as segmenter:
    frame = numpy.zeros((segmenter.spec.height, segmenter.spec.width, 3), numpy.uint8)
    segmenter(frame)
    first = time.clock_gettime(time.CLOCK_MONOTONIC)
    for _ in range(20):
        segmenter(frame)
    import resource
    print(json.dumps([first, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def cold_start(bundle: Path, runs: int = 3) -> ColdStart:
    """Over `runs` new processes."""
    seconds, memory = [], []
    for _ in range(runs):
        begin = time.clock_gettime(time.CLOCK_MONOTONIC)
        process = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(bundle)], capture_output=True, text=True, timeout=600
        )
        if process.returncode:
            raised = re.findall(r"^[\w.]+: (.+)", process.stderr, re.M) or [f"exit status {process.returncode}."]
            raise EdgesegError(f"A new process cannot run {bundle}: {raised[-1][:200]}", "Try: edgeseg verify BUNDLE")
        first, kilobytes = json.loads(process.stdout.splitlines()[-1])
        seconds.append(first - begin)
        memory.append(kilobytes / 1024)
    return ColdStart(
        first_mask_s=round(statistics.median(seconds), 3),
        runs_s=tuple(round(value, 3) for value in seconds),
        peak_memory_mb=round(max(memory), 1),
    )
