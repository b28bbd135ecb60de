"""OpenVINO Model API (`pip install --no-deps openvino-model-api`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from edgeseg.images import Image
from edgeseg.spec import Spec
from peers import Peer


def model_api(exported: Path, spec: Spec, out: Path) -> dict[str, Peer]:
    """Synchronous and asynchronous, with the logits and with an argmax inside the graph; {} where not installed."""
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
            if file != exported:  # 0.4.7 cannot postprocess a class map; give it the shortest postprocessing there is
                model.postprocess = lambda outputs, meta: cv2.resize(
                    outputs[model.output_blob_name].squeeze(),
                    meta["original_shape"][1::-1],
                    interpolation=cv2.INTER_NEAREST,
                )
            return model

        single, many = create(), create(nstreams="2", max_num_requests=3)
        peers[f"model api, {name}, sync"] = partial(map, single)
        peers[f"model api, {name}, async"] = partial(_pipelined, partial(AsyncPipeline, many))
    return peers


def _pipelined(create: Callable[[], Any], frames: list[Image]) -> Iterator[Image]:
    pipeline = create()
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
