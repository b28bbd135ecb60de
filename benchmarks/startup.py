"""From process start to the first class map: ours against a bare OpenVINO script. python benchmarks/startup.py BUNDLE

Both read the same model, infer one frame and make its class map. Their processes alternate; the ratio is a median of
pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from edgeseg.bundle import Bundle

BARE = """
import numpy, openvino
compiled = openvino.Core().compile_model({model!r}, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})
logits = compiled(numpy.zeros((1, {height}, {width}, 3), numpy.uint8))[0]
print(logits[0].argmax(0).shape)
"""
OURS = """
import numpy
from edgeseg import open_segmenter
with open_segmenter({bundle!r}) as segmenter:
    print(segmenter(numpy.zeros(({height}, {width}, 3), numpy.uint8)).classmap.shape)
"""


def seconds(code: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="an openvino-cpu bundle")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    spec = Bundle.load(options.bundle).spec
    values = {"bundle": str(options.bundle), "model": str(options.bundle / "model.xml"),
              "height": spec.height, "width": spec.width}  # fmt: skip
    pairs = [(seconds(BARE.format(**values)), seconds(OURS.format(**values))) for _ in range(options.rounds + 1)][1:]
    bare, ours = zip(*pairs)
    print(json.dumps({"bare_s": statistics.median(bare), "ours_s": statistics.median(ours),
                      "ratio": statistics.median(o / b for b, o in pairs)}, indent=1))  # fmt: skip


if __name__ == "__main__":
    main()
