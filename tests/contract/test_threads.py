"""A process that may use one CPU, as under `taskset -c 0`, infers with one thread on every backend."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PIN = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
COUNT = """
import os, sys
import numpy as np
from edgeseg.runtime import open_segmenter
with open_segmenter(sys.argv[1], threads=int(sys.argv[2])) as segmenter:
    segmenter(np.zeros((64, 96, 3), np.uint8))
    print(len(os.listdir("/proc/self/task")))
"""
PROPERTIES = "from edgeseg.backends import openvino\nprint(openvino.properties('CPU', 'f32', 'latency'))\n"
pytestmark = [
    pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux has CPU affinity"),
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one CPU cannot be limited further"),
]


def output(code: str, *words: object) -> str:
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("target", ["onnxruntime-cpu", "tflite-cpu"])
def test_as_many_threads_as_with_threads_1(bundle_of: Callable[[str, str], Path], target: str) -> None:
    path = bundle_of(target, "fp32")
    one, two = (int(output(PIN + COUNT, path, threads)) for threads in (1, 2))
    assert int(output(PIN + COUNT, path, 0)) == one < two


def test_openvino_is_limited_to_the_cpus_of_the_process() -> None:
    pytest.importorskip("openvino", reason="pip install 'edgeseg[openvino]'")
    assert "'INFERENCE_NUM_THREADS': 1" in output(PIN + PROPERTIES)
