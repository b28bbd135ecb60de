"""DeepStream: a configuration of its element nvinfer for semantic segmentation (network-type 2), a graph and labels.

The keys are those of the documentation of Gst-nvinfer. nvinfer hands over float32 [1, 3, H, W], y = net-scale-factor *
(x - offset), and takes for each pixel the class of the largest output above segmentation-threshold, which may not be
negative. So the graph gets such an input in place of the uint8 frame, with scale 1 and offset 0 since it normalizes
inside, and ends in probabilities at the network's size in place of logits at the head's stride.
"""

from __future__ import annotations

from pathlib import Path

from edgeseg.bundle import Bundle
from edgeseg.errors import OptionError
from edgeseg.exporters import _trtexec
from edgeseg.exporters._tensors import load_onnx

TITLE = "DeepStream"
BACKEND = "tensorrt"  # what it runs
MODEL, ENGINE, CONFIG, LABELS = "model.onnx", "model.engine", "config_infer.txt", "labels.txt"
NETWORK_MODES = {"fp32": 0, "int8": 1, "fp16": 2}
SCALING_FILTERS = {"nearest": 0, "linear": 1}  # NvBufSurfTransform_Inter


def refuse(bundle: Bundle) -> None:
    if bundle.backend != BACKEND:
        raise OptionError(
            f"DeepStream runs TensorRT, and {bundle.name} is for {bundle.backend}.",
            "Compile the model for the board: edgeseg compile MODEL --target jetson-orin",
        )
    _trtexec.refuse(bundle, TITLE)
    spec = bundle.spec
    if spec.fit != "stretch":
        raise OptionError(
            f"nvinfer cannot fit frames as {bundle.name} wants them ({spec.fit}).",
            "Train or compile it with the fit stretch; nvinfer pads with black only.",
        )
    if spec.interpolation not in SCALING_FILTERS:
        raise OptionError(
            f"nvinfer has no interpolation {spec.interpolation}, which {bundle.name} was made with.",
            f"It has: {', '.join(SCALING_FILTERS)}.",
        )
    if unfit := next((name for name in spec.classes if ";" in name), None):
        raise OptionError(f"Class name {unfit!r}: nvinfer reads ';' as an end.", "Rename the class.")


def write(bundle: Bundle, name: str, out: Path) -> str:
    model = load_onnx(bundle)
    from edgeseg.onnx_graph.probabilities import planar_float_image, probabilities

    planar_float_image(model)
    probabilities(model, bundle.spec.height, bundle.spec.width, bundle.upsample)
    (out / MODEL).write_bytes(model.SerializeToString())
    _trtexec.write(bundle, out / "build.sh", MODEL, ENGINE)
    (out / LABELS).write_text("\n".join(bundle.spec.classes) + "\n", "utf-8")
    (out / CONFIG).write_text("\n".join(_config(bundle, name)) + "\n", "utf-8")
    return f"{out / 'build.sh'} && gst-launch-1.0 ... ! nvinfer config-file-path={out / CONFIG} ! nvsegvisual ! ..."


def _config(bundle: Bundle, name: str) -> list[str]:
    spec = bundle.spec
    int8 = bundle.precision.is_int8
    return [
        f"# {name}, from the bundle {bundle.digest}",
        "[property]",
        "gpu-id=0",
        "gie-unique-id=1",
        "process-mode=1",
        "# Semantic segmentation; the graph ends in probabilities [1, C, H, W]",
        "network-type=2",
        f"num-detected-classes={len(spec.classes)}",
        "output-blob-names=probabilities",
        "segmentation-output-order=0",
        "segmentation-threshold=0.0",
        f"labelfile-path={LABELS}",
        "# Built by build.sh" + (": nvinfer itself builds no INT8 from a graph that holds its ranges" if int8 else ""),
        f"model-engine-file={ENGINE}",
        *([] if int8 else [f"onnx-file={MODEL}"]),
        f"network-mode={NETWORK_MODES[bundle.precision]}",
        "batch-size=1",
        f"infer-dims=3;{spec.height};{spec.width}",
        "# BGR as it is: the graph normalizes",
        "model-color-format=1",
        "net-scale-factor=1.0",
        "offsets=0.0;0.0;0.0",
        "maintain-aspect-ratio=0",
        f"scaling-filter={SCALING_FILTERS[spec.interpolation]}",
    ]
