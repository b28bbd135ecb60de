"""OpenVINO Model Server: config.json and the model's files in a version folder.

The keys are those of the server's own schema (model_server/src/schema.cpp) and of its documentation of parameters.
"""

from __future__ import annotations

import json
from pathlib import Path

from edgeseg.backends.openvino import COMPUTE
from edgeseg.bundle import Bundle
from edgeseg.errors import OptionError
from edgeseg.target import Target

TITLE = "OpenVINO Model Server"
BACKEND = "openvino"  # what it runs


def refuse(bundle: Bundle) -> None:
    """It runs everything by OpenVINO, so a bundle verified with another runtime would compute something unverified."""
    if bundle.backend != BACKEND:
        raise OptionError(
            f"{TITLE} cannot serve {bundle.name}: it was verified with {bundle.backend}, and the server runs OpenVINO.",
            "Compile the model for it: edgeseg compile MODEL --target openvino-cpu",
        )


def write(bundle: Bundle, name: str, out: Path) -> str:
    version = out / name / "1"
    version.mkdir(parents=True)
    for file in ("model.xml", "model.bin"):
        (version / file).write_bytes(bundle.read(file))
    (out / name / "labels.txt").write_text("\n".join(bundle.spec.classes) + "\n", "utf-8")
    device = Target.load(bundle.target).device
    settings = {
        "name": name,
        "base_path": name,  # relative to config.json
        "target_device": device,
        "plugin_config": {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": COMPUTE[device][bundle.precision],
        },
    }
    config = {"model_config_list": [{"config": settings}]}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    return f"ovms --config_path {out / 'config.json'} --rest_port 8000"
