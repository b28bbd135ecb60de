"""Run with the package label-studio-sdk: check tasks against their project's configuration, and write their brushes.

label_studio_brushes.py FOLDER MASKS: MASKS/IMAGE.npy [H, W] int, the place of the label in MASKS/labels.json or -1.
"""

import json
import sys
from pathlib import Path

import numpy as np
from label_studio_sdk.converter import brush
from label_studio_sdk.label_interface import LabelInterface

source, masks = map(Path, sys.argv[1:])
project = LabelInterface((source / "label_config.xml").read_text(encoding="utf-8"))
project.validate()
labels = list(project.get_control("label").labels)
for task in json.loads((source / "tasks.json").read_text(encoding="utf-8")):
    (annotation,) = task.pop("annotations")  # validate_task of 2.1.2 fails on tasks that have any
    assert project.validate_task(task), task["data"]
    assert project.validate_annotation({"result": annotation["result"]}), annotation
    drawn = None
    for result in annotation["result"]:
        height, width = result["original_height"], result["original_width"]
        drawn = np.full((height, width), -1) if drawn is None else drawn
        value = result["value"]
        drawn[brush.decode_rle(value["rle"]).reshape(height, width, 4)[..., 3] > 0] = labels.index(
            value["brushlabels"][0]
        )
    path = masks / f"{task['data']['image']}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, drawn)
(masks / "labels.json").write_text(json.dumps(labels))
