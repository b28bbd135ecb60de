"""Compare two bundles on the same frames: python examples/compare_bundles.py [BUNDLE BUNDLE]"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import edgeseg

parser = argparse.ArgumentParser(description="Agreement, size and latency of two bundles.")
parser.add_argument("bundles", nargs="*", default=["models/street/street-fp32", "models/street/street-int8"])
parser.add_argument("--frames", type=int, default=24)
options = parser.parse_args()
if len(options.bundles) != 2:
    parser.error("give two bundles")

street = edgeseg.Street(seed=21, height=360, width=640)
frames = [street.frame(10 * i)[0] for i in range(options.frames)]
agreement: list[float] = []
latency: dict[str, list[float]] = {bundle: [] for bundle in options.bundles}
first, second = options.bundles
with edgeseg.open_segmenter(first) as one, edgeseg.open_segmenter(second) as other:
    one(frames[0]), other(frames[0])  # the first frame of an engine is slower
    for frame in frames:  # interleaved, so that a machine that slows down slows both
        results = [one(frame), other(frame)]
        agreement.append(float((results[0].classmap == results[1].classmap).mean()))
        for bundle, result in zip(options.bundles, results):
            latency[bundle].append(1e3 * sum(result.times.values()))

for bundle, times in latency.items():
    size = edgeseg.Bundle.load(Path(bundle)).size / 1e6
    print(f"{bundle}: {size:.2f} MB, median {statistics.median(times):.2f} ms")
ratio = statistics.median(b / a for a, b in zip(latency[first], latency[second]))
print(f"{second} takes {ratio:.0%} of the time; they agree on {statistics.mean(agreement):.2%} of the pixels")
