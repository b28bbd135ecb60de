"""The networks that benchmarks measure, as float ONNX with their Spec, made where they are not shipped."""

from __future__ import annotations

import json
from pathlib import Path

from edgeseg.spec import ONNX_KEY, Spec

ROOT = Path(__file__).parent.parent
CACHE = ROOT / "runs" / "benchmarks"


def street() -> Path:
    """The shipped student."""
    return ROOT / "models" / "street" / "street.onnx"


def mobilenetv3_fpn() -> Path:
    """MobileNetV3-Large FPN at 512x512 with 19 classes of segmentation-models-pytorch, random weights (seed 0).

    Weights do not change its speed; they do make its class maps busier than a trained network's.
    """
    path = CACHE / "mobilenetv3-fpn.onnx"
    if path.is_file():
        return path
    import onnx
    import torch

    from edgeseg.recipe import NetConfig
    from edgeseg.training import nets

    torch.manual_seed(0)
    net = nets.build(NetConfig(arch="fpn", encoder="tu-mobilenetv3_large_100"), 19).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(net, (torch.zeros(1, 3, 512, 512),), str(path), opset_version=17, dynamo=False)
    model = onnx.load(str(path))
    entry = model.metadata_props.add()
    entry.key = ONNX_KEY
    entry.value = json.dumps(Spec(512, 512, tuple(f"class{i}" for i in range(19))).to_dict())
    onnx.save(model, str(path))
    return path
