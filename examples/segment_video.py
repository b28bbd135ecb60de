"""Segment a video: python examples/segment_video.py [VIDEO] [--bundle BUNDLE] [--out segmented.mp4]

Several frames are in flight at once (mode="throughput"); results come in order. For cameras use `edgeseg run`, which
also reconnects, drops old frames and reports metrics.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import cv2
import numpy as np

import edgeseg

parser = argparse.ArgumentParser(description="Segment a video and save it with the class colors over it.")
parser.add_argument("video", nargs="?", help="a video file; two seconds of a rendered street without one")
parser.add_argument("--bundle", default="models/street/street-int8")
parser.add_argument("--out", default="segmented.mp4")
options = parser.parse_args()
FPS = 25


def frames() -> Iterator[edgeseg.Frame]:
    if not options.video:
        street = edgeseg.Street(seed=7, height=360, width=640)
        yield from (edgeseg.Frame(street.frame(i)[0], i) for i in range(2 * FPS))
        return
    video = cv2.VideoCapture(options.video)
    index = 0
    while (read := video.read())[0]:
        yield edgeseg.Frame(read[1], index)
        index += 1


writer: cv2.VideoWriter | None = None
count = 0
with edgeseg.open_segmenter(options.bundle, mode="throughput") as segmenter:
    colors = np.array(segmenter.spec.palette, np.uint8)[:, ::-1]
    for result in segmenter.stream(frames()):
        image = result.frame.image
        size = (image.shape[1], image.shape[0])
        if writer is None:
            writer = cv2.VideoWriter(options.out, cv2.VideoWriter.fourcc(*"mp4v"), FPS, size)
        overlay = cv2.resize(colors[result.classmap], size, interpolation=cv2.INTER_NEAREST)
        writer.write(cv2.addWeighted(image, 0.5, overlay, 0.5, 0))
        count += 1
if writer is None:
    parser.error(f"{options.video} has no frames")
writer.release()
print(f"wrote {count} frames to {options.out}")
