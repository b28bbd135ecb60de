"""Segment one image: python examples/segment_image.py [IMAGE] [--bundle BUNDLE] [--out overlay.png]"""

from __future__ import annotations

import argparse

import cv2
import numpy as np

import edgeseg

parser = argparse.ArgumentParser(description="Segment one image and save it with the class colors over it.")
parser.add_argument("image", nargs="?", help="an image file; a rendered street without one")
parser.add_argument("--bundle", default="models/street/street-int8")
parser.add_argument("--out", default="overlay.png")
options = parser.parse_args()

image = cv2.imread(options.image) if options.image else edgeseg.Street(seed=7, height=360, width=640).frame(0)[0]
if image is None:
    parser.error(f"{options.image} is not an image")

with edgeseg.open_segmenter(options.bundle) as segmenter:
    result = segmenter(image)  # any [H, W, 3] uint8 BGR array
    spec = segmenter.spec

for index in np.unique(result.classmap):
    print(f"{spec.classes[index]:12} {(result.classmap == index).mean():6.1%}")
print({stage: f"{1e3 * seconds:.2f} ms" for stage, seconds in result.times.items()})

colors = np.array(spec.palette, np.uint8)[:, ::-1]  # RGB to BGR
size = (image.shape[1], image.shape[0])
overlay = cv2.resize(colors[result.classmap], size, interpolation=cv2.INTER_NEAREST)
cv2.imwrite(options.out, cv2.addWeighted(image, 0.5, overlay, 0.5, 0))
print(f"wrote {options.out}")
