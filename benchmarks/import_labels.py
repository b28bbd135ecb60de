"""Seconds and peak memory of `edgeseg data import` for polygons on 4K frames, on one core.

    python benchmarks/import_labels.py --out OUT [--polygons 3000] [--frames 12]

Writes OUT/labels as COCO JSON with JPEGs of 3840x2160, and imports it into OUT/dataset.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from edgeseg.data.importing import import_dataset
from edgeseg.images import write_image

HEIGHT, WIDTH = 2160, 3840


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--polygons", type=int, default=3000)
    parser.add_argument("--frames", type=int, default=12)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    generate(options.out / "labels", options.polygons, options.frames)
    started, used = time.monotonic(), time.process_time()
    result = import_dataset(options.out / "labels", options.out / "dataset", "coco", strict=True)
    seconds, used = time.monotonic() - started, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stdout.write(f"{result.frames} frames, {options.polygons} polygons: {seconds:.1f} s, peak {peak} MB")
    sys.stdout.write(f" ({used:.1f} s of CPU)\n")


def generate(folder: Path, polygons: int, frames: int) -> None:
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(frames):
        small = rng.integers(0, 256, (HEIGHT // 40, WIDTH // 40, 3)).astype(np.uint8)
        write_image(folder / "images" / f"{i:03}.jpg", np.asarray(cv2.resize(small, (WIDTH, HEIGHT)), np.uint8))
        images.append({"id": i, "file_name": f"{i:03}.jpg", "height": HEIGHT, "width": WIDTH})
    for i in range(polygons):
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(8, 60)))
        radius = rng.uniform(20, 300) * rng.uniform(0.7, 1.3, len(angles))
        ring = rng.uniform(0, (WIDTH, HEIGHT)) + np.stack((radius * np.cos(angles), radius * np.sin(angles)), 1)
        annotations.append(
            {"image_id": i % frames, "category_id": i % 10, "segmentation": [ring.round(2).ravel().tolist()]}
        )
    categories = [{"id": i, "name": f"class {i}"} for i in range(10)]
    document = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "labels.json").write_text(json.dumps(document))


if __name__ == "__main__":
    main()
