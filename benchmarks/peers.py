"""What others do with the same network and frames: naive OpenCV + numpy, and OpenVINO Model API where installed.

Each peer is a function frames -> iterator of class maps at the frame's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgeseg.data.images import Image
from edgeseg.spec import Spec

Peer = Callable[[list[Image]], Iterator[Image]]


def exported_int8(model: Path, spec: Spec, frames: list[Image], out: Path) -> Path:
    """The network as exported (float input, its own upsampling), quantised by NNCF as a user would."""
    import logging

    import nncf
    import openvino as ov

    nncf.set_log_level(logging.ERROR)
    data = nncf.Dataset([normalised(frame, spec) for frame in frames])
    ov.save_model(nncf.quantize(ov.Core().read_model(model), data, preset=nncf.QuantizationPreset.MIXED), out)
    return out


def normalised(frame: Image, spec: Spec) -> Any:
    """[1, 3, H, W] float32, the textbook way."""
    small = cv2.resize(frame, (spec.width, spec.height))[..., ::-1].astype(np.float32) / 255
    return ((small - np.array(spec.mean)) / np.array(spec.std)).transpose(2, 0, 1)[None].astype(np.float32)


def pure(exported: Path, compute: str = "") -> Callable[[int], int]:
    """The network alone: `count` inferences of the exported model, asynchronous, nothing before or after.

    `compute`: the precision of what is not INT8; empty is OpenVINO's default, bf16 on CPUs that have it.
    """
    import openvino as ov

    config = {"PERFORMANCE_HINT": "THROUGHPUT", **({"INFERENCE_PRECISION_HINT": compute} if compute else {})}
    compiled = ov.Core().compile_model(exported, "CPU", config)
    queue = ov.AsyncInferQueue(compiled)

    def run(count: int) -> int:
        for _ in range(count):
            queue.start_async()
        queue.wait_all()
        return count

    return run


def naive(exported: Path, spec: Spec) -> Peer:
    """resize, normalise and argmax in numpy around synchronous inference."""
    import openvino as ov

    compiled = ov.Core().compile_model(exported, "CPU")

    def run(frames: list[Image]) -> Iterator[Image]:
        for frame in frames:
            logits = compiled(normalised(frame, spec))[0]
            small = logits[0].argmax(0).astype(np.uint8)
            yield _nearest(small, frame.shape)

    return run


def _nearest(classmap: Any, shape: Any) -> Image:
    return np.asarray(cv2.resize(classmap, shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)


def model_api(exported: Path, spec: Spec, out: Path) -> dict[str, Peer]:
    """OpenVINO Model API, synchronous and asynchronous, with the logits and with an argmax inside the graph."""
    try:
        import openvino as ov
        from model_api.models import SegmentationModel
        from model_api.pipelines import AsyncPipeline
        from openvino import opset13 as ops
    except ImportError:
        return {}
    core = ov.Core()
    inside = core.read_model(exported)
    winner = ops.topk(
        inside.get_results()[0].input_value(0), ops.constant(1), 1, "max", "none", index_element_type="i32"
    )
    graph = ov.Model([ops.convert(winner.output(1), "u8")], inside.get_parameters())
    ov.save_model(graph, out / "argmax.xml")
    options = {
        "mean_values": [255 * m for m in spec.mean],
        "scale_values": [255 * s for s in spec.std],
        "reverse_input_channels": True,
        "return_soft_prediction": False,
        "resize_type": "standard",
        "model_type": "Segmentation",
    }
    peers: dict[str, Peer] = {}
    for name, file in (("logits", exported), ("argmax", out / "argmax.xml")):

        def create(file: Path = file, **more: Any) -> Any:
            model = SegmentationModel.create_model(str(file), "Segmentation", dict(options), device="CPU", **more)
            if file != exported:  # 0.4.7 cannot postprocess a class map; give it the shortest way there is
                model.postprocess = lambda outputs, meta: cv2.resize(
                    outputs[model.output_blob_name].squeeze(),
                    meta["original_shape"][1::-1],
                    interpolation=cv2.INTER_NEAREST,
                )
            return model

        single, many = create(), create(nstreams="2", max_num_requests=3)
        peers[f"model api, {name}, sync"] = lambda frames, model=single: (model(frame) for frame in frames)
        peers[f"model api, {name}, async"] = lambda frames, model=many: _pipelined(AsyncPipeline(model), frames)
    return peers


def _pipelined(pipeline: Any, frames: list[Image]) -> Iterator[Image]:
    done = 0
    for i, frame in enumerate(frames):
        while not pipeline.is_ready():
            pipeline.await_any()
            while (result := pipeline.get_result(done)) is not None:
                yield result[0]
                done += 1
        pipeline.submit_data(frame, i, {})
    pipeline.await_all()
    while (result := pipeline.get_result(done)) is not None:
        yield result[0]
        done += 1
