"""Run with the package datumaro: read a CVAT 1.1 dataset, write its masks, and the dataset as datumaro exports it.

datumaro_cvat.py FOLDER MASKS EXPORTED: MASKS/ITEM.npy [H, W] int, the place of the label in MASKS/labels.json or -1.
"""

import json
import sys
from pathlib import Path

import datumaro
import numpy as np

source, masks, exported = map(Path, sys.argv[1:])
dataset = datumaro.Dataset.import_from(str(source), "cvat")
labels = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
for item in dataset:
    height, width = item.media.size
    drawn = np.full((height, width), -1)
    for annotation in sorted(item.annotations, key=lambda one: one.z_order):
        assert annotation.type is datumaro.AnnotationType.mask, annotation.type
        drawn[np.asarray(annotation.image, bool)] = annotation.label
    path = masks / f"{item.id}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, drawn)
(masks / "labels.json").write_text(json.dumps(labels))
dataset.export(str(exported), "cvat", save_media=True)
